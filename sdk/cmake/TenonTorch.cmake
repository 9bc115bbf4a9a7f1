# LibTorch as our own imported targets: tenon::c10, tenon::torch_cpu. No find_package(Torch), which insists on a CUDA
# toolkit. TENON_TORCH_ROOT is a folder with include/ and lib/: the `torch` folder of the PyPI wheel. The native tier
# needs this exact version, so another one is refused here and not by a linker or a crash.
include_guard(GLOBAL)

set(TENON_TORCH_VERSION 2.11.0)

function(tenon_torch_version ROOT OUT)
  set(header "${ROOT}/include/torch/headeronly/version.h")
  set(version "")
  if(EXISTS "${header}")
    file(STRINGS "${header}" lines REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
    foreach(part MAJOR MINOR PATCH)
      if("${lines}" MATCHES "TORCH_VERSION_${part} ([0-9]+)")
        list(APPEND version ${CMAKE_MATCH_1})
      endif()
    endforeach()
    list(JOIN version . version)
  endif()
  set(${OUT} "${version}" PARENT_SCOPE)
endfunction()

function(tenon_find_torch)
  set(need "need version ${TENON_TORCH_VERSION}")
  set(remedy "install it with: pip install --no-deps torch==${TENON_TORCH_VERSION} nvidia-cuda-runtime==13.0.96 \
nvidia-cuda-cupti==13.0.85\nand give its folder: -DTENON_TORCH_ROOT=.../site-packages/torch")
  if(NOT TENON_TORCH_ROOT)
    message(FATAL_ERROR "[tenon] found no TENON_TORCH_ROOT, need LibTorch ${TENON_TORCH_VERSION}\n${remedy}")
  endif()
  tenon_torch_version("${TENON_TORCH_ROOT}" found)
  if(NOT EXISTS "${TENON_TORCH_ROOT}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "[tenon] found no LibTorch in ${TENON_TORCH_ROOT}, ${need}\n${remedy}")
  elseif(NOT found)
    # Versions before 2.9 keep their number elsewhere; they are all too old.
    message(FATAL_ERROR "[tenon] found an older LibTorch in ${TENON_TORCH_ROOT}, ${need}\n${remedy}")
  elseif(NOT found VERSION_EQUAL TENON_TORCH_VERSION)
    message(FATAL_ERROR "[tenon] found LibTorch ${found} in ${TENON_TORCH_ROOT}, ${need}\n${remedy}")
  endif()

  if(TARGET tenon::torch_cpu)
    return()
  endif()
  # GLOBAL: imported targets are otherwise seen only below the folder that makes them.
  add_library(tenon::c10 SHARED IMPORTED GLOBAL)
  set_target_properties(tenon::c10 PROPERTIES IMPORTED_LOCATION "${TENON_TORCH_ROOT}/lib/libc10.so")
  # FMT_HEADER_ONLY: LibTorch's headers carry a fmt of their own without its library.
  add_library(tenon::torch_headers INTERFACE IMPORTED GLOBAL)
  target_include_directories(tenon::torch_headers SYSTEM INTERFACE
    "${TENON_TORCH_ROOT}/include" "${TENON_TORCH_ROOT}/include/torch/csrc/api/include")
  target_compile_definitions(tenon::torch_headers INTERFACE _GLIBCXX_USE_CXX11_ABI=1 FMT_HEADER_ONLY)
  add_library(tenon::torch_cpu SHARED IMPORTED GLOBAL)
  set_target_properties(tenon::torch_cpu PROPERTIES IMPORTED_LOCATION "${TENON_TORCH_ROOT}/lib/libtorch_cpu.so")
  target_link_libraries(tenon::torch_cpu INTERFACE tenon::c10 tenon::torch_headers)
  # libtorch_cpu finds libcudart and libcupti by its own RPATH when it is loaded; the linker need not.
  target_link_options(tenon::torch_cpu INTERFACE -Wl,--allow-shlib-undefined)
endfunction()
