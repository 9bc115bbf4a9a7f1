// The merge: m_t = sum over experts of w_i(t) * E_i(h)_t, running only what somebody chose.
//
// Exactness. Experts are not chained: an expert's input at every position is the trunk's output, whether or not earlier
// positions chose it. `token` experts run on the gathered rows. The others, when chosen, are first caught up over what
// they missed and need (catch_up.hpp). Given the same strengths the result equals running everything densely.
// The sum is float32, in slot order, skipping zero strengths; one expert with strength 1 gives its output bit for bit.
#pragma once

#include "host/execution/gather.hpp"

namespace tenon {

// h_NC: the trunk's outputs of the batch's rows; where rows have a sequence, already kept in sequence->h.
// w_NE: strengths, columns in slot order. Errors: plugin (a fault, when strict), numeric never: it is a fault.
at::Tensor merge(const at::Tensor& h_NC, const at::Tensor& w_NE, Experts& experts, const Batch& batch);

// Its parts, for whoever has the outputs already.
// y_KC, contiguous. Errors: plugin, where a value is not finite.
at::Tensor checked(const at::Tensor& y_KC, const LoadedExpert& expert);
// m_n += w_n y_n over the chosen rows; where the strength is 1 the output stands as it is, sign of zero included.
// Requires: y_KC is contiguous.
void add_weighted(at::Tensor& m_NC, const Chosen& chosen, const at::Tensor& y_KC);

} // namespace tenon
