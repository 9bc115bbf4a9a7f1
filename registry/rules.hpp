// The registry's rules: each has a stable id, which every refusal carries and documentation may cite.
//
//   id      word        refuses                                                                exit
//   TN-R1   registry    a path that holds no registry, or one of a newer schema                3 / 4
//   TN-R2   missing     a package, version, entry or blob that is not there                    3
//   TN-R3   kind        a package of another kind than was asked for                           4
//   TN-R4   range       a range that no published version is in, or only yanked ones           3
//   TN-R5   name        a name, version or path that may not be published                      2
//   TN-R6   published   a version that is published already, or another source for its builds  2
//   TN-R7   platform    a plugin version without a build for this platform                     4
//   TN-R8   digest      a blob or entry whose bytes are not what their digest says             5
//   TN-R9   format      an index, entry, manifest, request or lock that is malformed           5
//   TN-R10  model       an expert made for another trunk and head                              4
//   TN-R11  base        an expert made beside another base                                     4
//   TN-R12  contract    cut, width, tokenizer, dtype or positions differ from the model's      4
//   TN-R13  request     a composition request that contradicts itself                          2
//   TN-R14  locked      a lock that no longer says what the registry says                      4
//
// Ids are never given a second meaning; a rule that goes leaves its number empty.
#pragma once

#include <string>

namespace tenon::rules {

inline constexpr const char* kRegistry = "TN-R1 registry";
inline constexpr const char* kMissing = "TN-R2 missing";
inline constexpr const char* kKind = "TN-R3 kind";
inline constexpr const char* kRange = "TN-R4 range";
inline constexpr const char* kName = "TN-R5 name";
inline constexpr const char* kPublished = "TN-R6 published";
inline constexpr const char* kPlatform = "TN-R7 platform";
inline constexpr const char* kDigest = "TN-R8 digest";
inline constexpr const char* kFormat = "TN-R9 format";
inline constexpr const char* kModel = "TN-R10 model";
inline constexpr const char* kBase = "TN-R11 base";
inline constexpr const char* kContract = "TN-R12 contract";
inline constexpr const char* kRequest = "TN-R13 request";
inline constexpr const char* kLocked = "TN-R14 locked";

// Who speaks when a file is malformed: "TN-R9 format: expert.json".
inline std::string format(const std::string& where) { return std::string(kFormat) + ": " + where; }

} // namespace tenon::rules
