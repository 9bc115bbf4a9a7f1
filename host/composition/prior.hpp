// The base's prior for one set of rows: the least c >= 0 that gives the base a mean strength of 0.9 on the part of D_0
// that no expert was trained on. Rows stay bit-equal; only c moves when the set changes.
#pragma once

#include "host/model/model.hpp"
#include "host/routing/router.hpp"

#include <filesystem>
#include <functional>

namespace tenon {

using PriorProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// The trunk's outputs at positions 1 .. 255 of blocks of the held-out part of D_0, (N,C): computed once a model, then
// mapped from the cache.
at::Tensor general_rows(const Model& model, const std::filesystem::path& cache, const PriorProgress& progress = {});

// Errors: not_found (a model without D_0), numeric (no prior is enough).
double fit_prior(const Model& model, const std::vector<Row>& rows, const Routing& routing,
                 const std::filesystem::path& cache, const PriorProgress& progress = {});

} // namespace tenon
