# What it takes to build against ROS 2 from PyPI's wheels. With a ROS installation sourced, none of it changes anything.

# Puts the environment that Python imports `ament_package` from onto the ament index and CMake's search path.
# A macro: CMAKE_PREFIX_PATH is the caller's.
macro(find_ros_wheels)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c "import ament_package, pathlib; print(pathlib.Path(ament_package.__file__).parents[4])"
    OUTPUT_VARIABLE _ros_prefix
    OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET
  )
  # The index itself, because a sourced ROS finds ament_package through PYTHONPATH and is on the path already.
  if(_ros_prefix AND EXISTS "${_ros_prefix}/share/ament_index/resource_index")
    list(APPEND CMAKE_PREFIX_PATH "${_ros_prefix}")
    if(NOT "$ENV{AMENT_PREFIX_PATH}" MATCHES "(^|:)${_ros_prefix}(:|$)")
      set(ENV{AMENT_PREFIX_PATH} "$ENV{AMENT_PREFIX_PATH}:${_ros_prefix}")
    endif()
  endif()
  unset(_ros_prefix)
endmacro()

# The wheels' exported targets name include directories of the machine that built them, and CMake refuses to generate with
# directories that do not exist. To be called after rosidl_generate_interfaces(), in the same directory.
function(drop_missing_include_directories)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(existing)
    foreach(directory IN LISTS directories)
      if(directory MATCHES "\\$<" OR EXISTS "${directory}")
        list(APPEND existing "${directory}")
      endif()
    endforeach()
    set_property(TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${existing}")
  endforeach()
endfunction()
