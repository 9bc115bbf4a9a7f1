// Policies: how the scores along a sequence become strengths. In every one position 0 takes the base, strengths sum to
// 1, and a sequence gets the same strengths whether it is read whole, in chunks or token by token. The base's prior is
// fitted position by position, as under token.
//
// What a text is about changes more slowly than its words. Under token and sticky s(t) is therefore the mean of the
// scores at the last average_over positions, position 0 left out; with 1 it is the position's own. The prior is fitted
// on general text averaged alike.
//
//   token     w(t) = sparsify(s(t)), each position for itself.
//   sticky    Hysteresis, so that few experts have to be in memory and a sequence seldom changes them. A kept set S of
//             k = top_k slots, the base among the candidates. At position 1, S is the k best of s(1). At every later
//             position, as long as
//                 max over i outside S of s_i(t)  >  min over j in S of s_j(t)  +  margin
//             that i takes that j's place. Then w_i(t) = softmax over S of s(t) / temperature, and 0 outside.
//             Ties: the lower slot is the better one. margin is in nats of log-odds, before the temperature; 0 is the
//             policy token. Default 2: an expert takes over where the text is e^2 = 7.4 times likelier its own.
//   sequence  Decided once: positions [0, n), n = decide_after, take the base, so that no expert is loaded before it is
//             known to be needed; from position n on w(t) = sparsify(mean over 0 < u < n of s(u)), the same to the end.
//             Position 0 says nothing about a text and is left out. Default 32.
//
// Shapes: T positions of one sequence in order, E experts, column 0 the base. Thread: pure but for the state given.
#pragma once

#include "host/model/state.hpp"
#include "registry/lock.hpp"

#include <ATen/core/Tensor.h>

namespace tenon {

// Row t of the result is the mean of rows max(0, t - over + 1) .. t, summed in this order: it does not depend on what
// follows, nor on more rows before. Column 0, the prior, stays as it is. Rows before `from` are read, and left out.
at::Tensor average_scores(const at::Tensor& scores_TE, std::int64_t over, std::int64_t from = 0);

// sticky: strengths (T,E) of positions [first, first + T); state.kept is read, and goes on. Requires: first >= 1.
at::Tensor sticky_strengths(const at::Tensor& scores_TE, std::int64_t first, const Routing& routing,
                            PolicyState& state);

} // namespace tenon
