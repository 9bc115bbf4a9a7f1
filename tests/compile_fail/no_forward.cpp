// An expert that says nothing is no expert.
#include <tenon/native.hpp>

struct Silent : tenon::Expert {
  using Expert::Expert;
};

TENON_PLUGIN(tenon::architecture<Silent>("acme.silent"));
