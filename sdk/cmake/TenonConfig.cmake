# find_package(Tenon): tenon::sdk_abi (C headers), tenon::sdk_headers (and LibTorch's), tenon::sdk (and its libraries),
# tenon_add_plugin(). Needs TENON_TORCH_ROOT, as a variable or in the environment.
if(NOT TENON_TORCH_ROOT AND DEFINED ENV{TENON_TORCH_ROOT})
  set(TENON_TORCH_ROOT "$ENV{TENON_TORCH_ROOT}")
endif()
set(TENON_TORCH_ROOT "${TENON_TORCH_ROOT}" CACHE PATH "LibTorch 2.11.0: a folder with include/ and lib/")
include("${CMAKE_CURRENT_LIST_DIR}/TenonTorch.cmake")
tenon_find_torch()
include("${CMAKE_CURRENT_LIST_DIR}/TenonTargets.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/TenonPlugin.cmake")
set(Tenon_FOUND TRUE)
