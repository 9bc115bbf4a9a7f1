# cmake -DFACTS=plugin.json -P read_facts.cmake: what tenon_add_plugin() does first. A break in a long message is undone.
include("${CMAKE_CURRENT_LIST_DIR}/../../sdk/cmake/TenonFacts.cmake")
tenon_read_facts("${FACTS}" json name version)
message(STATUS "accepted ${name} ${version}")
