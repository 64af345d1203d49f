// What went wrong, in words; signals and the time limit.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>

#include "state.h"

namespace emulator {

bool failed;
std::atomic<bool> expired;
static std::vector<std::string> messages;
static sigjmp_buf before_kernel;
static pthread_t launcher;
static char signal_stack[64 << 10];
static timer_t timer;

enum { MOST_MESSAGES = 8, RETRY_MS = 10 };
enum { SIGNALS = 6 };
static const int signals[SIGNALS] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};
static struct sigaction former[SIGNALS];

void say(const char* format, ...) {
    char text[2048];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    bool known = std::find(messages.begin(), messages.end(), text) != messages.end();
    if (!known && messages.size() < MOST_MESSAGES) messages.push_back(text);
}

std::string who(const Fiber* f) {
    if (!f) return "a thread";
    char text[128];
    snprintf(text, sizeof text, "thread (%u, %u, %u) of block (%u, %u, %u)", f->index.x, f->index.y,
             f->index.z, blockIdx.x, blockIdx.y, blockIdx.z);
    return text;
}

std::string at(const Site& site) {
    const char* slash = strrchr(site.file, '/');
    if (!site.line) return site.what;
    return std::string(site.what) + " at " + (slash ? slash + 1 : site.file) + ":" +
           std::to_string(site.line);
}

std::string at(const Fiber* f) {
    char text[32];
    snprintf(text, sizeof text, "[^0x%tx]", (const char*)f->called_from - request.module->low - 1);
    return at(f->site) + text;
}

// A place in the library, which the launcher turns into file and line.
std::string source_of(const void* pc) {
    char text[32];
    ptrdiff_t offset = (const char*)pc - request.module->low - 1;
    snprintf(text, sizeof text, "[+0x%tx]", offset);
    return text;
}

void fail(const char* what, const Site& site) {
    say("%s, in %s, at %s", what, who(current).c_str(), at(site).c_str());
    abandon();
}

static void say_time_is_up() {
    say("time limit of %d s: %s still runs (a spin wait that no other thread can end?)",
        request.timeout, who(current).c_str());
}
void time_is_up() {
    say_time_is_up();
    abandon();
}

static const char* counter_of(void* context) {
#if defined(__x86_64__)
    return (const char*)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
#else
    return (const char*)((ucontext_t*)context)->uc_mcontext.pc;
#endif
}

static void set_timer(long milliseconds) {
    itimerspec limit{};
    limit.it_value = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    timer_settime(timer, 0, &limit, nullptr);
}

static void say_signal(int number, const char* address, const char* pc) {
    bool in_kernel = pc >= request.module->low && pc < request.module->high;
    std::string source = in_kernel ? " " + source_of(pc + 1) : "";
    std::string thread = who(current);
    const Region* region = nullptr;
    for (const Region& r : regions)
        if (r.map && address >= r.map && address < r.map + r.map_bytes) region = &r;
    if (current && address >= current->stack && address < current->stack + PAGE)
        say("stack overflow in %s%s", thread.c_str(), source.c_str());
    else if (number == SIGFPE)
        say("integer division by zero in %s%s", thread.c_str(), source.c_str());
    else if (region && !region->writable && address >= region->low && address < region->high)
        say("write to %s, which the kernel declares const, by %s%s", region->name.c_str(),
            thread.c_str(), source.c_str());
    else if (number == SIGSEGV || number == SIGBUS)
        say("out-of-bounds or misaligned access by %s: %s%s", thread.c_str(),
            describe(address).c_str(), source.c_str());
    else
        say("signal %d (%s) in %s%s", number, strsignal(number), thread.c_str(), source.c_str());
}

static void pass_on(int number, siginfo_t* info, void* context) {
    const struct sigaction& old = former[std::find(signals, signals + SIGNALS, number) - signals];
    if (old.sa_flags & SA_SIGINFO) old.sa_sigaction(number, info, context);
    else if (old.sa_handler == SIG_DFL) signal(number, SIG_DFL), raise(number);
    else if (old.sa_handler != SIG_IGN) old.sa_handler(number);
}

static void on_signal(int number, siginfo_t* info, void* context) {
    bool mine = pthread_equal(pthread_self(), launcher);
    const char* pc = counter_of(context);
    if (number == SIGALRM && info->si_code == SI_TIMER) {
        expired = true;
        // Only out of kernel code, which holds no lock; elsewhere the flag is seen, or the next try.
        if (!mine || !current || pc < request.module->low || pc >= request.module->high)
            return set_timer(RETRY_MS);
        say_time_is_up();
    } else if (!mine || !current || number == SIGALRM) {
        return pass_on(number, info, context);
    } else {
        say_signal(number, (const char*)info->si_addr, pc);
    }
    siglongjmp(before_kernel, 1);
}

static void catch_signals() {
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < SIGNALS; i++) sigaction(signals[i], &action, &former[i]);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGALRM;
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);  // a busy machine is no fault
    set_timer(request.timeout * 1000L);
}

static void release_signals() {
    timer_delete(timer);
    for (int i = 0; i < SIGNALS; i++) sigaction(signals[i], &former[i], nullptr);
}

bool run_guarded(void (*body)()) {
    stack_t mine{signal_stack, 0, sizeof signal_stack}, former_stack;
    launcher = pthread_self();
    messages.clear();
    failed = false;
    expired = false;
    sigaltstack(&mine, &former_stack);
    catch_signals();
    if (sigsetjmp(before_kernel, 1)) failed = true;
    else body();
    current = nullptr;
    release_signals();
    sigaltstack(&former_stack, nullptr);
    return !failed;
}

}  // namespace emulator

extern "C" const char* emulator_messages() {
    static std::string text;
    text.clear();
    for (const std::string& line : emulator::messages) text += line + "\n";
    return text.c_str();
}
