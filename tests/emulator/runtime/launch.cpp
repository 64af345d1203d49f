// A launch: the blocks of the grid, one after another.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <numeric>

#include "state.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

Request request;

static void run_block(unsigned number) {
    const unsigned* grid = request.grid;
    block_number = number;
    blockIdx = {number % grid[0], number / grid[0] % grid[1], number / grid[0] / grid[1]};
    fill_shared_memory();
    start_barriers();
    if (request.check) start_checking_block();
    start_fibers();
    resume_first();
    if (failed) return;
    if (alive) {
        say_deadlock();
        failed = true;
    }
    check_dynamic_overrun();
}

static void run_blocks() {
    unsigned blocks = request.grid[0] * request.grid[1] * request.grid[2];
    std::vector<unsigned> shuffled;
    if (request.order == RANDOM) {
        shuffled.resize(blocks);
        std::iota(shuffled.begin(), shuffled.end(), 0u);
        for (unsigned i = blocks - 1; i > 0; i--)
            std::swap(shuffled[i], shuffled[random_word() % (i + 1)]);
    }
    for (unsigned i = 0; i < blocks && !failed; i++)
        run_block(request.order == RANDOM ? shuffled[i]
                  : request.order == REVERSE ? blocks - 1 - i : i);
}

}  // namespace emulator

using namespace emulator;

// 0: done, and the arrays hold the results. 1: a fault, see emulator_messages(); they are as before.
extern "C" int emulator_launch(const Request* wanted) {
    request = *wanted;
    gridDim = dim3(request.grid[0], request.grid[1], request.grid[2]);
    blockDim = dim3(request.block[0], request.block[1], request.block[2]);
    prepare_fibers();
    guard_buffers();
    find_shared_memory();
    if (request.check) start_checker();
    bool well = run_guarded(run_blocks) && !*emulator_messages();
    if (request.check) stop_checker();
    return release_buffers(well) ? 0 : 1;
}

struct Image {
    char *inside, *low, *high;
};
static int find_image(dl_phdr_info* info, size_t, void* wanted) {
    Image& image = *(Image*)wanted;
    char *low = (char*)UINTPTR_MAX, *high = nullptr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto& header = info->dlpi_phdr[i];
        if (header.p_type != PT_LOAD) continue;
        char* begin = (char*)info->dlpi_addr + header.p_vaddr;
        low = std::min(low, begin);
        high = std::max(high, begin + header.p_memsz);
    }
    if (image.inside < low || image.inside >= high) return 0;
    image.low = low;
    image.high = high;
    return 1;
}
// Where the library lies whose function this is.
extern "C" void emulator_image(char* inside, char** low, char** high) {
    Image image{inside, nullptr, nullptr};
    dl_iterate_phdr(find_image, &image);
    *low = image.low;
    *high = image.high;
}
