// Changing from one stack to another. Written as assembly text, outside any function, so that the
// compiler assumes nothing about registers.
//
//     void emulator_switch(void** save, void* to)
//
// pushes the registers that a function must keep, stores the stack pointer in *save, takes `to` for it
// and pops. A new fiber's stack holds such a record whose return address is the fiber's function.
#include "state.h"

#if defined(__x86_64__)
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emulator_switch, . - emulator_switch
)");

namespace emulator {
void* new_stack(char* top, void (*start)()) {
    void** record = (void**)top;
    *--record = nullptr;  // so that the stack is aligned as after a call
    *--record = (void*)start;
    return record - 6;
}
}  // namespace emulator

#elif defined(__aarch64__)
// This has been assembled; it has never run.
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, %function
emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emulator_switch, . - emulator_switch
)");

namespace emulator {
void* new_stack(char* top, void (*start)()) {
    void** record = (void**)(top - 160);
    memset((void*)record, 0, 160);
    record[11] = (void*)start;  // x30, where the switch returns to
    return record;
}
}  // namespace emulator
#else
#error "the emulator's context switch is written for x86-64 and aarch64"
#endif
