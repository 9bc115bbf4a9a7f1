// A composition as data: what was asked for (composition.json) and exactly what it became (composition.lock.json).
//
// Slot 0 is always the model's base; slots are numbered without gaps, in the order asked for. A lock holds versions and
// every digest, so that a locked run gives the same bytes or says what differs.
// Thread: values; any thread.
#pragma once

#include "registry/manifest.hpp"
#include "registry/registry.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

struct Routing {
  std::string strengths = "top_k"; // "softmax", "top_k", "sparsemax", "entmax" (1.5)
  std::int64_t top_k = 2;          // of "top_k", the base included
  double temperature = 1.0;
  std::string policy = "token";   // "token", "sticky", "sequence"
  double margin = 2.0;            // of "sticky": by how much a score must exceed a kept one's
  std::int64_t decide_after = 32; // of "sequence": from how many first tokens it is decided
  std::int64_t average_over = 1;  // of "token" and "sticky": how many last positions a score is the mean of
  bool operator==(const Routing&) const = default;

  // Why these do not go together; "" where they do.
  std::string problem() const;
};
// What the policy and the strengths read, and no more.
json::object to_json(const Routing& routing);

struct Request {
  PackageRequest model;
  std::vector<PackageRequest> experts; // without the base
  Routing routing;
  std::string compute_dtype = "float32"; // of products: "bf16", "int8", "int4", "stored"

  static Request parse(const json::value& value, const std::string& where);
  json::object to_json() const;
  bool operator==(const Request&) const = default;
};

struct LockedModel {
  std::string name;
  Version version;
  std::string entry, model_digest;
  bool operator==(const LockedModel&) const = default;
};

struct LockedPlugin {
  std::string name;
  Version version;
  std::string entry, platform, library; // library: digest of the build
  bool operator==(const LockedPlugin&) const = default;
};

struct LockedSlot {
  std::int64_t slot = 0;
  std::string name;
  Version version;
  std::string entry;
  std::vector<std::string> weights; // digests of its weight files, in path order
  std::optional<std::string> row;   // none for the base
  LockedPlugin plugin;
  bool operator==(const LockedSlot&) const = default;
};

// The base's prior is fitted for one set of rows; it holds only while set_digest() is still prior_set.
struct LockedRouter {
  Routing routing;
  std::optional<double> prior;
  std::string prior_set; // "" where there is no prior
  bool operator==(const LockedRouter&) const = default;
};

struct Lock {
  LockedModel model;
  std::vector<LockedSlot> slots;
  LockedRouter router;
  std::string compute_dtype = "float32";

  static Lock parse(const json::value& value, const std::string& where);
  json::object to_json() const;
  bool operator==(const Lock&) const = default;

  // Of everything the prior depends on: the model, each slot's entry and row, and how strengths are made.
  std::string set_digest() const;
};

// Errors: not_found, integrity. Writing is atomic.
Request read_request(const std::filesystem::path& path);
void write_request(const std::filesystem::path& path, const Request& request);
Lock read_lock(const std::filesystem::path& path);
void write_lock(const std::filesystem::path& path, const Lock& lock);

// A lock, or every reason why there is none.
struct Resolution {
  std::optional<Lock> lock;
  std::vector<Refusal> refusals;
  Lock value() const; // Errors: the first refusal, the others named in its message.
};

// Model, then its base and experts, then a plugin build for each: one level, no search. The highest version in range
// that is not yanked wins. The prior is left empty: whoever has scores fits it.
Resolution resolve(const Registry& registry, const Request& request, std::string_view platform);

struct LockCheck {
  std::vector<Refusal> refusals;     // what is missing or differs, both sides named
  std::vector<std::string> warnings; // yanked since
};
// Does the registry still hold what the lock says? Entries are hashed; blobs are looked for (verify hashes them).
LockCheck check_locked(const Registry& registry, const Lock& lock);

} // namespace tenon
