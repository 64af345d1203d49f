// Device memory: copies of the arrays between unmapped pages, and the block's shared memory.
#include <sys/mman.h>

#include <algorithm>

#include "state.h"

namespace emulator {

std::vector<Region> regions;  // in order of addresses

enum { FILL = 0xff };  // NaN in every float format

static char *storage, *dynamic_shared;  // the module's thread-local storage

// A copy of the buffer that ends less than 16 bytes before an unmapped page and begins after one, at
// the same offset from a multiple of 16 as the array. The bytes between are filled.
static Region guarded(const Buffer& buffer) {
    size_t skew = (size_t)buffer.data % 16;
    size_t body = (skew + buffer.bytes + 15) / 16 * 16;
    size_t pages = std::max<size_t>((body + PAGE - 1) / PAGE * PAGE, PAGE), all = pages + 2 * PAGE;
    char* map = (char*)mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) abort();
    char *begin = map + PAGE, *end = begin + pages;
    mprotect(begin, pages, PROT_READ | PROT_WRITE);
    char *low = end - body + skew, *high = low + buffer.bytes;
    memset(begin, FILL, low - begin);
    if (buffer.bytes) memcpy(low, buffer.data, buffer.bytes);
    memset(high, FILL, end - high);
    if (!buffer.writable) mprotect(begin, pages, PROT_READ);
    return {low, high, buffer.name, false, buffer.writable != 0, map, all, &buffer, 0, nullptr};
}

static bool around_is_untouched(const Region& r) {
    auto filled = [](char byte) { return byte == (char)FILL; };
    return std::all_of(r.map + PAGE, r.low, filled) &&
           std::all_of(r.high, r.map + r.map_bytes - PAGE, filled);
}

static bool by_address(const Region& a, const Region& b) { return a.low < b.low; }

void guard_buffers() {
    regions.clear();
    for (int i = 0; i < request.buffer_count; i++) regions.push_back(guarded(request.buffers[i]));
    for (int i = 0; i < request.patch_count; i++) {
        const Patch& patch = request.patches[i];
        *patch.where = regions[patch.buffer].low + patch.offset;
    }
}

// Gives the buffers back, with their contents when the kernel did well.
bool release_buffers(bool copy_back) {
    for (Region& r : regions) {
        if (!r.map) continue;
        if (!around_is_untouched(r) && !failed) {
            say("wrote just outside %s, which has %zu bytes", r.name.c_str(), r.high - r.low);
            copy_back = false;
        }
    }
    for (Region& r : regions) {
        if (!r.map) continue;
        if (copy_back && r.writable && r.high > r.low)
            memcpy(r.buffer->data, r.low, r.high - r.low);
        munmap(r.map, r.map_bytes);
    }
    regions.clear();
    return copy_back;
}

// Shared memory is the library's thread-local storage. The check build sees each variable of it.
void find_shared_memory() {
    const Module& module = *request.module;
    dynamic_shared = module.dynamic();
    storage = dynamic_shared - module.dynamic_offset;
    if (!request.check) return;
    auto add = [](char* low, size_t bytes, std::string name) {
        regions.push_back({low, low + bytes, name, true, true, nullptr, 0, nullptr, 0, nullptr});
    };
    for (int i = 0; i < module.shared_count; i++) {
        const SharedVariable& v = module.shared[i];
        add(storage + v.offset, v.bytes, std::string("shared variable ") + v.name);
    }
    add(dynamic_shared, request.shared, "dynamic shared memory");
    std::sort(regions.begin(), regions.end(), by_address);
}

// Before each block: what nothing wrote is NaN.
void fill_shared_memory() {
    size_t before = request.module->dynamic_offset, dynamic = MAX_SHARED + RED_ZONE;
    size_t after = request.module->storage_bytes - before - dynamic;
    memset(dynamic_shared, FILL, request.shared + RED_ZONE);
    if (before) memset(storage, FILL, before);
    if (after) memset(dynamic_shared + dynamic, FILL, after);
}

void check_dynamic_overrun() {
    const char *end = dynamic_shared + request.shared, *stop = end + RED_ZONE;
    const char* hit = std::find_if(end, stop, [](char byte) { return byte != (char)FILL; });
    if (hit == stop) return;
    say("block (%u, %u, %u) wrote past its %zu bytes of dynamic shared memory, at byte %td",
        blockIdx.x, blockIdx.y, blockIdx.z, request.shared, hit - dynamic_shared);
    failed = true;
}

Region* region_of(const char* p) {
    static size_t last;
    if (last < regions.size() && p >= regions[last].low && p < regions[last].high)
        return &regions[last];
    size_t i = 0, n = regions.size();
    while (n) {  // the last region that begins at or before p
        size_t half = n / 2;
        if (regions[i + half].low <= p) i += half + 1, n -= half + 1;
        else n = half;
    }
    if (!i || p >= regions[i - 1].high) return nullptr;
    return &regions[last = i - 1];
}

// An address in words, for a message; from the plain build's unordered regions too.
std::string describe(const char* p) {
    if (p < (char*)PAGE) return "a null pointer";
    const Region* nearest = nullptr;
    ptrdiff_t best = 1 << 24;
    for (const Region& r : regions) {
        ptrdiff_t d = p < r.low ? r.low - p : p >= r.high ? p - r.high + 1 : 0;
        if (d < best) best = d, nearest = &r;
    }
    char text[512];
    if (!nearest) snprintf(text, sizeof text, "address %p, near no buffer", (const void*)p);
    else
        snprintf(text, sizeof text, "byte %td of %s, which has %td bytes", p - nearest->low,
                 nearest->name.c_str(), nearest->high - nearest->low);
    return text;
}

}  // namespace emulator
