#include "state.h"
namespace emulator {
void start_checker() {}
void start_checking_block() {}
void pass_syncwarp(const int*, int) {}
void check(const char*, size_t, Access, const void*) {}
void begin_copy(char*, int, const void*) {}
void end_copy(char*, int, const void*) {}
void stop_checker() {}
void fence(bool) {}
void check_access(const void*, size_t, Access) {}
}
