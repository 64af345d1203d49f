// A small thread pool: parallel(n, f) calls f(0) ... f(n - 1), each once, on several threads.
//
// The caller works too and takes whatever the workers have not begun, so a worker that is slow to
// wake costs nothing. A worker looks for the next job for a few microseconds, then sleeps: idle,
// the pool costs nothing and leaves the cores to the BLAS library's threads. A call from inside a
// call, or from a second thread while a job runs, runs on its own thread. After a fork the child
// starts a fresh pool. Which thread runs which i is not fixed: kernels make each f(i) write its own
// place, so that no result depends on the number of threads.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <pthread.h>
#include <stdlib.h>
#include <system_error>
#include <thread>
#include <time.h>

#include "simd.h"

#if defined(__x86_64__)
inline void relax() { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
inline void relax() { asm volatile("yield"); }
#else
inline void relax() {}
#endif

class Pool {
    struct Job {
        void (*call)(const void *, long);
        const void *f;
        long n;
        int seats;  // how many workers may still join
        std::atomic<long> next{0};
        void work() {
            for (long i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) call(f, i);
        }
    };

    std::mutex lock;
    std::condition_variable wake;
    std::atomic<unsigned> posted{0};  // counts jobs: what an idle worker watches
    std::atomic<int> active{0};       // workers inside the job
    std::atomic<bool> busy{false};    // a job is running
    Job *job = nullptr;
    int workers = 0, sleeping = 0;

    static long microseconds() {
        timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000L + t.tv_nsec / 1000;
    }

    void worker() {
        unsigned seen = 0;
        for (;;) {
            for (long end = microseconds() + 20; posted == seen && microseconds() < end;)
                for (int i = 0; i < 16; i++) relax();
            std::unique_lock<std::mutex> held(lock);
            while (posted == seen) {
                sleeping++;
                wake.wait(held);
                sleeping--;
            }
            seen = posted;
            Job *mine = job;
            if (!mine || mine->seats == 0) continue;
            mine->seats--;
            active++;
            held.unlock();
            mine->work();
            active--;
        }
    }

    void post(Job &mine) {
        std::lock_guard<std::mutex> held(lock);
        try {
            for (; workers < mine.seats; workers++) std::thread(&Pool::worker, this).detach();
        } catch (const std::system_error &) {
            mine.seats = workers;  // no more threads to be had: fewer do it
        }
        job = &mine;
        posted++;
        for (int i = mine.seats < sleeping ? mine.seats : sleeping; i > 0; i--) wake.notify_one();
    }

    void retire() {
        {
            std::lock_guard<std::mutex> held(lock);
            job = nullptr;  // from here on nobody joins
        }
        for (int spins = 0; active != 0; spins++) {
            if (spins < 4096) relax();
            else std::this_thread::yield();
        }
    }

  public:
    std::atomic<int> threads{1};

    // Never destroyed: sleeping workers must not meet a dead mutex when the process ends.
    static Pool *&instance() {
        static Pool *pool = [] {
            pthread_atfork(nullptr, nullptr, [] {
                int threads = instance()->threads;
                instance() = new Pool;  // the parent's workers and locks did not come along
                instance()->threads = threads;
            });
            return new Pool;
        }();
        return pool;
    }

    void run(long n, void (*call)(const void *, long), const void *f) {
        long seats = (n < threads ? n : long(threads)) - 1;
        if (seats <= 0 || busy.exchange(true)) {
            for (long i = 0; i < n; i++) call(f, i);
            return;
        }
        Job mine{call, f, n, int(seats)};
        post(mine);
        mine.work();
        retire();
        busy = false;
    }
};

inline int thread_count() { return Pool::instance()->threads; }

template <class F> void parallel(long n, const F &f) {
    Pool::instance()->run(n, [](const void *g, long i) { (*static_cast<const F *>(g))(i); }, &f);
}

// n items cut into pieces of at least `least`, as many as keep every thread busy: f(begin, end).
// Only for work in which no result depends on where the cuts are.
template <class F> void parallel_ranges(long n, long least, const F &f) {
    long pieces = n / (least > 0 ? least : 1), most = 4L * thread_count();
    if (thread_count() == 1) most = 1;
    if (pieces > most) pieces = most;
    if (pieces < 1) pieces = 1;
    parallel(pieces, [&](long i) { f(n * i / pieces, n * (i + 1) / pieces); });
}

// A block of memory that each thread keeps between calls, by slot, grown on demand and zeroed when
// new, so that nobody computes with stray denormal numbers. Blocks past 16 MiB live for one use.
class Scratch {
    struct Kept {
        void *p = nullptr;
        size_t bytes = 0;
        ~Kept() { drop(p, bytes); }
    };
    static constexpr size_t KEEP = size_t(16) << 20;
    void *p = nullptr;
    size_t own = 0;

    static void *fresh(size_t bytes) {
        void *block = aligned_alloc(4096, bytes);
        if (!block) throw std::bad_alloc();
        size_t now = count().now += bytes, most = count().most;
        while (now > most && !count().most.compare_exchange_weak(most, now)) {}
        return block;
    }
    static void drop(void *block, size_t bytes) {
        free(block);
        count().now -= bytes;
    }

  public:
    // Bytes of all threads: held now, and at most so far.
    struct Count {
        std::atomic<size_t> now{0}, most{0};
    };
    static Count &count() {
        static Count all;
        return all;
    }
    Scratch(int slot, size_t bytes) {
        bytes = (bytes + 4095) / 4096 * 4096;
        if (bytes > KEEP) {
            p = fresh(own = bytes);
            return;
        }
        static thread_local Kept kept[4];
        if (kept[slot].bytes < bytes) {
            drop(kept[slot].p, kept[slot].bytes);
            kept[slot].bytes = 0;
            kept[slot].p = nullptr;
            kept[slot].p = memset(fresh(bytes), 0, bytes);
            kept[slot].bytes = bytes;
        }
        p = kept[slot].p;
    }
    ~Scratch() {
        if (own) drop(p, own);
    }
    Scratch(const Scratch &) = delete;
    template <class T> T *as() const { return static_cast<T *>(p); }
};
