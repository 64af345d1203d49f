// Atomic operations, and loads and stores with a cache hint. Threads take turns on one operating-system
// thread, so that a plain read and write is atomic; the check build is told that it was meant so.
#pragma once
#include "interface.h"

namespace emulator {

template <class T> EMULATOR_UNCHECKED T fetch(const T* p) {
    T value;
    memcpy((void*)&value, (const void*)p, sizeof(T));
    return value;
}
template <class T> EMULATOR_UNCHECKED void put(T* p, T value) {
    memcpy((void*)p, (const void*)&value, sizeof(T));
}
template <class T, class F> __forceinline__ T update(T* p, F next) {
    EMULATOR_CHECK(p, sizeof(T), ATOMIC);
    T old = fetch(p);
    put(p, next(old));
    return old;
}

}  // namespace emulator

#define EMULATOR_ATOMIC(name, next)                                                       \
    template <class T, class V> __forceinline__ T name(T* p, V v) {                       \
        T value = T(v);                                                                   \
        return emulator::update(p, [&](T old) -> T { return next; });                     \
    }                                                                                     \
    template <class T, class V> __forceinline__ T name##_block(T* p, V v) { return name(p, v); } \
    template <class T, class V> __forceinline__ T name##_system(T* p, V v) { return name(p, v); }
EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicSub, old - value)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old)
EMULATOR_ATOMIC(atomicMax, old < value ? value : old)
EMULATOR_ATOMIC(atomicAnd, old & value)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicXor, old ^ value)
EMULATOR_ATOMIC(atomicExch, value)
EMULATOR_ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
EMULATOR_ATOMIC(atomicDec, old == 0 || old > value ? value : T(old - 1))
#undef EMULATOR_ATOMIC

template <class T, class C, class V> __forceinline__ T atomicCAS(T* p, C compare, V value) {
    T old = emulator::update(p, [&](T was) -> T { return was == T(compare) ? T(value) : was; });
    if (!(old == T(compare))) emulator::give_way();  // perhaps a spin lock: its owner must get on
    return old;
}

#define EMULATOR_LOAD(name) template <class T> __forceinline__ T name(const T* p) { return *p; }
EMULATOR_LOAD(__ldg)
EMULATOR_LOAD(__ldca)
EMULATOR_LOAD(__ldcg)
EMULATOR_LOAD(__ldcs)
EMULATOR_LOAD(__ldcv)
EMULATOR_LOAD(__ldlu)
#undef EMULATOR_LOAD
#define EMULATOR_STORE(name) \
    template <class T, class V> __forceinline__ void name(T* p, V v) { *p = v; }
EMULATOR_STORE(__stcg)
EMULATOR_STORE(__stcs)
EMULATOR_STORE(__stwb)
EMULATOR_STORE(__stwt)
#undef EMULATOR_STORE
