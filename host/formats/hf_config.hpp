// config.json of a Hugging Face model of one of our families, read so that nothing that changes the mathematics is
// ignored.
#pragma once

#include "host/formats/source_model.hpp"
#include "registry/base/json.hpp"

namespace tenon {

// where: the file, for messages. Errors: incompatible, naming the key and its value, for what is not supported or not
// known; integrity for missing fields and wrong types.
ModelConfig read_hf_config(const json::value& config, const std::string& where);

} // namespace tenon
