# gpu.cmake - tests and benchmarks of gfl_cuda.cu
#
# On any machine with CUDA's headers they run on the emulator of tests/emu: X.emu as it is, X.check
# with its detector of races, illegal addresses and unset shared memory.  With GFL_GPU=ON nvcc
# compiles them for the GPU that is here: X.gpu.  X.cuda is X.cpu on the other backend, either way.
option(GFL_GPU "run the tests of GPUs on this machine's GPU" OFF)

find_path(CUDA_INCLUDE cuda_runtime.h PATHS $ENV{CUDA_HOME}/include /usr/local/cuda/include)
if(NOT CUDA_INCLUDE)
    return()
endif()

enable_language(CXX)
set(EMU ${CMAKE_SOURCE_DIR}/emu)
file(GLOB sources ${EMU}/test_*.cc)
file(GLOB modules ${ROOT}/src/cuda/*.* ${ROOT}/src/cuda/conv/*.* ${ROOT}/src/gfl_cuda.cu ${EMU}/*.h)
set(backend ${CMAKE_BINARY_DIR}/gfl_cuda.cc)
set(layers ${ROOT}/bench/gpu/layers.cc)
file(WRITE ${backend} "#ifndef __CUDACC__\n#include \"emu.h\"\n#endif\n#include \"gfl_cuda.cu\"\n")
set_source_files_properties(${sources} ${backend} ${layers} PROPERTIES OBJECT_DEPENDS "${modules}")

if(GFL_GPU)
    set(kinds gpu)
    set(CMAKE_CUDA_ARCHITECTURES OFF)
    enable_language(CUDA)
    set(arch 90a CACHE STRING "the GPU's, as in sm_90a")
    set(FLAGS_gpu -std=c++17 -O3 -lineinfo -Werror all-warnings -diag-suppress 177
        -Xcompiler -fvisibility=hidden
        -gencode arch=compute_${arch},code=sm_${arch})
    set_source_files_properties(${sources} ${backend} ${layers} PROPERTIES LANGUAGE CUDA)
else()
    set(kinds emu check)
    if(GFL_CONFIG STREQUAL sanitize)
        set(kinds emu) # one instrumentation at a time
    endif()
    # As the library's own names are: g++ warns of visible types that are made of hidden ones.
    set(FLAGS_emu -O2 -std=c++17 -fvisibility=hidden -Wno-unknown-pragmas
        -Wno-unused-function -Wno-conversion -Wno-sign-conversion -Wno-pedantic -Wno-shadow -Wno-psabi)
    set(FLAGS_check ${FLAGS_emu} -fsanitize=thread -O1) # its callbacks are the emulator's own
endif()
list(GET kinds 0 usual)

foreach(kind ${kinds})
    add_library(${kind} INTERFACE)
    if(NOT kind STREQUAL gpu)
        add_library(${kind}_runtime STATIC ${EMU}/emu.cc)
        target_include_directories(${kind}_runtime SYSTEM PUBLIC ${CUDA_INCLUDE})
        target_compile_options(${kind}_runtime PRIVATE ${FLAGS_emu})
        target_link_libraries(${kind} INTERFACE ${kind}_runtime)
    endif()
endforeach()
if(TARGET check_runtime)
    target_compile_definitions(check_runtime PRIVATE EMU_CHECK)
    target_link_options(check INTERFACE -no-pie) # and libtsan is not linked
endif()

# How a target that has gfl_cuda.cu in it is built.
function(gfl_gpu_target target kind)
    target_compile_options(${target} PRIVATE ${FLAGS_${kind}})
    target_include_directories(${target} PRIVATE ${EMU} ${CMAKE_SOURCE_DIR})
    target_compile_definitions(${target} PRIVATE GFL_INTERNAL)
    target_link_libraries(${target} PUBLIC ${kind} gfl_src)
endfunction()

foreach(kind ${kinds})
    foreach(source ${sources})
        get_filename_component(file ${source} NAME_WE)
        string(REGEX REPLACE "^test_" "" name ${file})
        add_executable(${file}_${kind} ${source})
        gfl_gpu_target(${file}_${kind} ${kind})
        list(APPEND gpu_tests ${file}_${kind})
        add_test(NAME ${name}.${kind} COMMAND ${file}_${kind} cpu)
        gfl_test_properties(${name}.${kind})
        if(kind STREQUAL gpu)
            set_tests_properties(${name}.gpu PROPERTIES TIMEOUT 120) # one that hangs costs GPU time
        endif()
    endforeach()
endforeach()

# Names of the three shipped files do not meet: they compile as one unit.
file(WRITE ${CMAKE_BINARY_DIR}/one_unit.cc "#ifndef __CUDACC__\n#include \"emu.h\"\n#endif\n\
#define GFL_IMPLEMENTATION\n#include \"gfl.h\"\n#include \"gfl_train.c\"\n#include \"gfl_cuda.cu\"\n\
int main() { return gfl_cuda() ? 0 : 1; }\n")
set_source_files_properties(${CMAKE_BINARY_DIR}/one_unit.cc PROPERTIES
    OBJECT_DEPENDS "${ROOT}/gfl.h;${ROOT}/gfl_train.c;${ROOT}/gfl_cuda.cu")
if(GFL_GPU)
    set_source_files_properties(${CMAKE_BINARY_DIR}/one_unit.cc PROPERTIES LANGUAGE CUDA)
endif()
add_executable(one_unit ${CMAKE_BINARY_DIR}/one_unit.cc)
target_compile_options(one_unit PRIVATE ${FLAGS_${usual}} $<$<NOT:$<BOOL:${GFL_GPU}>>:-O0>)
target_include_directories(one_unit PRIVATE ${EMU} ${ROOT})
target_link_libraries(one_unit ${usual} m pthread)
add_test(NAME shipped_files_are_one_unit COMMAND one_unit)
gfl_test_properties(shipped_files_are_one_unit)

add_library(gfl_cuda STATIC ${backend})
gfl_gpu_target(gfl_cuda ${usual})
foreach(name ${ON_EVERY_BACKEND})
    add_executable(test_${name}_cuda ${CMAKE_SOURCE_DIR}/test_${name}.c)
    list(APPEND gpu_tests test_${name}_cuda)
    target_compile_definitions(test_${name}_cuda PRIVATE GFL_INTERNAL GFL_TEST_CUDA
                               _POSIX_C_SOURCE=200809L)
    target_link_libraries(test_${name}_cuda gfl_cuda)
    set_target_properties(test_${name}_cuda PROPERTIES LINKER_LANGUAGE CXX)
    add_test(NAME ${name}.cuda COMMAND test_${name}_cuda cuda)
    gfl_test_properties(${name}.cuda)
    if(GFL_GPU)
        set_tests_properties(${name}.cuda PROPERTIES TIMEOUT 120)
    endif()
endforeach()

# The command with GPUs.
file(GLOB command ${ROOT}/examples/cmd_*.c ${ROOT}/examples/gfl.c)
add_executable(gfl_with_cuda ${command})
target_compile_definitions(gfl_with_cuda PRIVATE GFL_WITH_CUDA)
target_link_libraries(gfl_with_cuda gfl_cuda)
set_target_properties(gfl_with_cuda PROPERTIES LINKER_LANGUAGE CXX)
add_test(NAME gpu_cli COMMAND sh ${CMAKE_SOURCE_DIR}/gpu_cli.sh $<TARGET_FILE:gfl_with_cuda>
         ${CMAKE_BINARY_DIR}/scratch_gpu_cli $<TARGET_FILE:make_shapes>)
gfl_test_properties(gpu_cli)

# The benchmark, so that it still runs when there is a GPU; the times mean nothing here.
add_executable(bench_layers ${layers})
gfl_gpu_target(bench_layers ${usual})
foreach(precision fp32 bf16)
    add_test(NAME bench_layers_${precision}.${usual} COMMAND bench_layers model=r18 narrow=1
             width=32 height=32 precision=${precision} runs=1 gemm=64 copy=1 variants=128x64)
    gfl_test_properties(bench_layers_${precision}.${usual})
endforeach()

add_test(NAME bench_serve.${usual} COMMAND sh -c "out=\$(echo 1 | $<TARGET_FILE:bench_layers> serve=1 \
model=r18 narrow=1 width=32 height=32 copy=1) || exit
echo \"\$out\" | grep '^[0-9.]* [0-9.]*$'")
gfl_test_properties(bench_serve.${usual})
add_custom_target(gpu_tests DEPENDS ${gpu_tests} gfl_with_cuda make_shapes bench_layers)

if(NOT GFL_GPU)
    # Streams that run late and interleaved: whoever forgets to wait reads what is not there yet.
    add_test(NAME cuda_detect_lazy.emu COMMAND test_cuda_detect_emu cpu)
    gfl_test_properties(cuda_detect_lazy.emu)
    set_property(TEST cuda_detect_lazy.emu APPEND PROPERTY ENVIRONMENT EMU_LAZY_STREAMS=1)
endif()
