# Writes a header with the template's files as text: path without ".in" -> contents.
function(tenon_embed_template FOLDER HEADER)
  file(GLOB files CONFIGURE_DEPENDS "${FOLDER}/*.in")
  set(entries "")
  foreach(file IN LISTS files)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
    get_filename_component(name "${file}" NAME)
    string(REGEX REPLACE "\\.in$" "" name "${name}")
    file(READ "${file}" text)
    string(APPEND entries "    {\"${name}\", R\"~(${text})~\"},\n")
  endforeach()
  file(CONFIGURE OUTPUT "${HEADER}" CONTENT "// Generated from sdk/template/.
#pragma once

#include <map>
#include <string>

namespace tenon {

inline const char* const kProjectTemplateVersion = \"${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}\";
inline const std::map<std::string, std::string> kProjectTemplate = {
@entries@};

} // namespace tenon
" @ONLY)
endfunction()
