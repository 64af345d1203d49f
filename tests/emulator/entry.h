// How the launcher reaches a kernel: for each one the library exports its thread function, the types
// of its parameters and its launch bound.
#pragma once
#include "interface.h"

namespace emulator {

// NumPy's name of a type; other types are "struct" and their size.
template <class T> inline int type_name(char* out) {
    const char* kind = std::is_same_v<T, __nv_bfloat16> ? "bfloat" : std::is_same_v<T, __half> ? "float"
        : std::is_floating_point_v<T> ? "float" : std::is_same_v<T, bool> ? "bool"
        : !std::is_integral_v<T> ? "struct" : std::is_signed_v<T> ? "int" : "uint";
    if (std::is_same_v<T, bool>) return sprintf(out, "bool");
    return sprintf(out, "%s%d", kind, int(kind[0] == 's' ? sizeof(T) : 8 * sizeof(T)));
}
template <> inline int type_name<void>(char* out) { return sprintf(out, "void"); }

template <class T> struct Parameter {
    static int describe(char* out) { return type_name<T>(out); }
};
template <class T> struct Parameter<T*> {
    static int describe(char* out) {
        int n = sprintf(out, std::is_const_v<T> ? "const*" : "*");
        return n + type_name<std::remove_cv_t<T>>(out + n);
    }
};
template <template <class> class Table, class T> struct Parameter<Table<T*>> {
    static int describe(char* out) {
        int n = sprintf(out, "table%d:", int(sizeof(Table<T*>)));
        return n + Parameter<T*>::describe(out + n);
    }
};

template <auto kernel> struct Entry;
template <class... P, void (*kernel)(P...)> struct Entry<kernel> {
    template <size_t... I> EMULATOR_UNCHECKED static void call(void** a, std::index_sequence<I...>) {
        kernel(*(std::remove_cv_t<P>*)a[I]...);
    }
    EMULATOR_OPERATION static void thread(void** arguments) {
        call(arguments, std::index_sequence_for<P...>());
    }
    static const char* signature() {
        static char text[8192];
        char* out = text;
        ((out += Parameter<std::remove_cv_t<P>>::describe(out), *out++ = ' '), ...);
        return text;
    }
};

}  // namespace emulator

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))
#define EMULATOR_KERNEL(name, bound)                                                              \
    EMULATOR_EXPORT void emulator_thread_##name(void** a) { emulator::Entry<name>::thread(a); }   \
    EMULATOR_EXPORT const char* emulator_signature_##name() {                                     \
        return emulator::Entry<name>::signature();                                                \
    }                                                                                             \
    EMULATOR_EXPORT long long emulator_bound_##name() { return bound; }

// The buffer that the build puts behind every `extern __shared__` name.
extern thread_local char emulator_dynamic_shared[];
#define EMULATOR_MODULE() \
    EMULATOR_EXPORT char* emulator_dynamic() { return emulator_dynamic_shared; }
