# Compiles the sources of a target together, some at a time, with STAITHE_UNITY: what they include
# and instantiate is then compiled once for each group instead of once for each of them.
#
# What stands in an unnamed namespace is its file's own, so two files may use a name for different
# things: such files go to different groups. Their names are read off the lines that begin in the
# first column, which is where clang-format puts whatever a namespace defines. A definition that is
# taken for one by mistake costs nothing but another group.

# More at a time is less work in all, but some forty groups keep every processor busy to the end.
set(STAITHE_UNITY_BYTES 90000 CACHE STRING "Source text that is compiled together, in bytes")

# The names that `source` defines and those that it brings in by a using declaration.
function(staithe_names source defined_out brought_out)
  file(READ ${source} text)
  string(REPLACE "\n[[noreturn]] " "\n" text "\n${text}")
  string(REGEX REPLACE "[][;]" " " text "${text}")  # They would make lists of it.
  string(REGEX MATCHALL
    "\n((class|struct|enum class|enum|union|using|constexpr|const|static|inline) )?[A-Za-z_][^={(\n]*"
    lines "${text}")
  set(defined "")
  set(brought "")
  foreach(line IN LISTS lines)
    string(STRIP "${line}" line)
    if(line MATCHES "^(using namespace|namespace|template|static_assert|[A-Z_]+)( |$)")
      continue()
    elseif(line MATCHES "^using [A-Za-z_0-9:]+::([A-Za-z_0-9]+)$")
      list(APPEND brought ${CMAKE_MATCH_1})
    elseif(line MATCHES "^(class|struct|enum class|enum|union) ([A-Za-z_0-9]+)")
      list(APPEND defined ${CMAKE_MATCH_2})
    elseif(line MATCHES "(^|[^:A-Za-z_0-9])([A-Za-z_0-9]+)$")
      list(APPEND defined ${CMAKE_MATCH_2})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES defined)
  list(REMOVE_DUPLICATES brought)
  set(${defined_out} "${defined}" PARENT_SCOPE)
  set(${brought_out} "${brought}" PARENT_SCOPE)
endfunction()

function(staithe_any_in out list among)
  foreach(name IN LISTS ${list})
    if(name IN_LIST ${among})
      set(${out} TRUE PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${out} FALSE PARENT_SCOPE)
endfunction()

# Each source goes to the first group that has room for it and none of its names.
function(staithe_unity target)
  if(NOT STAITHE_UNITY)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  set(groups 0)
  foreach(source IN LISTS sources)
    if(NOT source MATCHES "\\.cc$")
      continue()
    endif()
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
    file(SIZE ${source} bytes)
    staithe_names(${source} defined brought)
    set(group 0)
    while(group LESS groups)
      math(EXPR together "${bytes_${group}} + ${bytes}")
      staithe_any_in(clash defined defined_${group})
      if(NOT clash)
        staithe_any_in(clash defined brought_${group})
      endif()
      if(NOT clash)
        staithe_any_in(clash brought defined_${group})
      endif()
      if(NOT clash AND together LESS_EQUAL STAITHE_UNITY_BYTES)
        break()
      endif()
      math(EXPR group "${group} + 1")
    endwhile()
    if(group EQUAL groups)
      math(EXPR groups "${groups} + 1")
      set(bytes_${group} 0)
    endif()
    math(EXPR bytes_${group} "${bytes_${group}} + ${bytes}")
    list(APPEND defined_${group} ${defined})
    list(APPEND brought_${group} ${brought})
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${target}_${group})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()
