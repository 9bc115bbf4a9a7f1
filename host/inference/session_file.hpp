// A session in a file: a text that was read once goes on in another process, with the same bits.
//
// A safetensors file; every number float32 but tokens, or, where that holds a tensor bit for bit, as it does keys and
// values kept so, bfloat16, or int8 times the step of its group in the tensor NAME.steps (compact_tensor.hpp). With n
// tokens of which r have been run, E experts, width C:
//   tokens I32 (n);  strengths (r,E);  h (r,C);  base (b,C), b <= r
//   MODULE/SLOT, the module's state slot by slot: MODULE is trunk, head, or expert.0, expert.1, ...
// The metadata key "tenon.session" holds JSON: {"schema": 2, "composition": DIGEST, "run": r, "excluded": [slots],
// "modules": {MODULE: {"first", "done"}}, "policy": [{"position", "slots"}], "note": {...}, "made_with": {"model",
// "experts": [titles], "compute", "keys"}}; the last is for messages alone, and may be missing.
// "tenon.session.sha256" is session_digest() of it and the tensors, so that damage is seen. It fits the one composition
// it was made with (Composition::state_digest), and no other. Thread: that of the session.
#pragma once

#include "host/formats/safetensors.hpp"
#include "host/inference/session.hpp"

#include <filesystem>

namespace tenon {

struct SavedSession {
  Session session;
  json::object note; // what whoever saved it wrote beside it
};

// Errors: environment. The file appears whole or not at all.
void save_session(const Session& session, const std::filesystem::path& path, const json::object& note = {});

// Whether this file holds a session, of whatever composition, damaged or not.
bool is_session(const std::filesystem::path& path);

// Of the text of "tenon.session" and the tensors, whatever their order.
std::string session_digest(std::string_view head, std::span<const TensorView> tensors);

// options: as of a new session; what it excludes is the file's. Errors: those of reading; incompatible (no session, of
// another schema, or of another composition); integrity (another digest than the file says; a size or number that does
// not agree with the others); usage (more tokens than the context holds).
SavedSession restore_session(Composition& composition, const std::filesystem::path& path, SessionOptions options = {});
SavedSession restore_session(Composition& composition, const SafetensorsFile& file, SessionOptions options = {});

} // namespace tenon
