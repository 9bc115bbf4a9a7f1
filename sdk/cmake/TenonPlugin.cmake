# tenon_add_plugin(TARGET SOURCES a.cpp ... FACTS plugin.json [HEADERS a.hpp ...])
#
# Builds a plugin: a shared library that exports tenon_plugin_entry alone, lists neither LibTorch nor any other library
# of its own, and carries its facts (plugin.json, checked, plus platform, boundary and source digest) as an ELF note.
# A second link, thrown away, against LibTorch says what would be missing when the host loads it.
include_guard(GLOBAL)
include("${CMAKE_CURRENT_LIST_DIR}/TenonFacts.cmake")


# What the host compares exactly; host/loading/platform.cpp says the same of the host.
function(_tenon_platform OUT)
  string(TOLOWER "${CMAKE_CXX_COMPILER_ID}" family)
  string(REGEX MATCH "^[0-9]+" major "${CMAKE_CXX_COMPILER_VERSION}")
  set(stdlib "libstdc++-cxx11")
  if(CMAKE_CXX_FLAGS MATCHES "-stdlib=libc\\+\\+")
    set(stdlib "libc++")
  endif()
  set(cpu "${CMAKE_SYSTEM_PROCESSOR}")
  if(cpu STREQUAL "AMD64")
    set(cpu x86_64)
  endif()
  tenon_torch_version("${TENON_TORCH_ROOT}" libtorch)
  set(${OUT} "\"platform\": {\"compiler\": \"${family}-${major}\", \"stdlib\": \"${stdlib}\", \
\"libtorch\": \"${libtorch}\", \"cuda\": \"none\", \"cpu\": \"${cpu}\"}" PARENT_SCOPE)
endfunction()

function(_tenon_abi OUT)
  get_target_property(folders tenon::sdk_abi INTERFACE_INCLUDE_DIRECTORIES)
  foreach(folder IN LISTS folders)
    string(REGEX REPLACE "^\\$<BUILD_INTERFACE:(.*)>$" "\\1" folder "${folder}")
    if(EXISTS "${folder}/tenon/plugin.h")
      file(STRINGS "${folder}/tenon/plugin.h" lines REGEX "^#define TENON_ABI_(MAJOR|MINOR) ")
    endif()
  endforeach()
  string(REGEX MATCH "TENON_ABI_MAJOR ([0-9]+)" ignored "${lines}")
  set(major ${CMAKE_MATCH_1})
  string(REGEX MATCH "TENON_ABI_MINOR ([0-9]+)" ignored "${lines}")
  # TENON_PLUGIN() needs the first boundary of its major; both say so, and the host compares them.
  set(${OUT} "\"abi\": {\"tier\": \"tenon.native/1\", \"built\": \"${major}.${CMAKE_MATCH_1}\", \
\"needs\": \"${major}.0\"}" PARENT_SCOPE)
endfunction()

# Facts completed when sources change, and the note made of them.
function(_tenon_embed_facts TARGET FACTS FILES)
  _tenon_platform(platform)
  _tenon_abi(abi)
  set(out "${CMAKE_CURRENT_BINARY_DIR}/${TARGET}_facts")
  add_custom_command(OUTPUT "${out}.json" "${out}.cpp"
    COMMAND "${CMAKE_COMMAND}" "-DFACTS=${FACTS}" "-DBUILD_FACTS=${platform}, ${abi}" "-DSOURCES=${FILES}"
      "-DDIRECTORY=${CMAKE_CURRENT_SOURCE_DIR}" "-DOUT=${out}" -P "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/TenonFacts.cmake"
    DEPENDS "${FACTS}" ${FILES} "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/TenonFacts.cmake"
    COMMENT "Facts of ${TARGET}" VERBATIM)
  target_sources(${TARGET} PRIVATE "${out}.cpp")
  set_source_files_properties("${out}.cpp" PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()

function(_tenon_plugin_options TARGET)
  target_link_libraries(${TARGET} PRIVATE tenon::sdk_headers)
  target_compile_options(${TARGET} PRIVATE -fvisibility=hidden -fvisibility-inlines-hidden
    $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
  set(script "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/tenon_plugin.map")
  target_link_options(${TARGET} PRIVATE "-Wl,--version-script=${script}" -Wl,--exclude-libs,ALL -Wl,-z,now -Wl,-z,relro)
  string(REPLACE "." "_" file "${TARGET}")
  set_target_properties(${TARGET} PROPERTIES PREFIX "" OUTPUT_NAME "${file}" SKIP_BUILD_RPATH ON INSTALL_RPATH ""
    INSTALL_RPATH_USE_LINK_PATH OFF POSITION_INDEPENDENT_CODE ON LINK_DEPENDS "${script}")
endfunction()

function(tenon_add_plugin TARGET)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "FACTS" "SOURCES;HEADERS")
  if(NOT arg_SOURCES OR NOT arg_FACTS OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR
      "[tenon] tenon_add_plugin(${TARGET} ...): found ${ARGN}; need SOURCES a.cpp ... FACTS plugin.json")
  endif()
  set(files ${arg_SOURCES} ${arg_HEADERS})
  list(TRANSFORM files REPLACE "^([^/].*)$" "${CMAKE_CURRENT_SOURCE_DIR}/\\1")
  get_filename_component(facts "${arg_FACTS}" ABSOLUTE)
  tenon_read_facts("${facts}" ignored ignored_name version)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${facts}")

  add_library(${TARGET} MODULE ${arg_SOURCES})
  _tenon_plugin_options(${TARGET})
  _tenon_embed_facts(${TARGET} "${facts}" "${facts};${files}")
  if(TENON_PLUGIN_PRECOMPILED)
    target_precompile_headers(${TARGET} REUSE_FROM ${TENON_PLUGIN_PRECOMPILED})
  endif()

  # The throw-away link: the same objects with LibTorch named, so that an undefined name is an error here and now.
  add_library(${TARGET}_link_check SHARED $<TARGET_OBJECTS:${TARGET}>)
  target_link_libraries(${TARGET}_link_check PRIVATE $<TARGET_PROPERTY:${TARGET},LINK_LIBRARIES> tenon::torch_cpu)
  target_link_options(${TARGET}_link_check PRIVATE -Wl,-z,defs)
  set_target_properties(${TARGET}_link_check PROPERTIES LINKER_LANGUAGE CXX
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles")
endfunction()
