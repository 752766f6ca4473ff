/* libibverbs.so.1 for programs that a preload does not reach: they dlopen it and ask that handle
 * (NCCL), or are bound with RTLD_DEEPBIND. This library has no function of its own. It needs
 * librbond.so and, by absolute path, the real libibverbs: whoever searches it finds our functions
 * first and the real library's for the rest. It defines every version node that a program built
 * against some libibverbs may ask for, since the linker looks for those by the library's name. */
extern const char rbond_shim[];

__attribute__((visibility("default"))) const char rbond_shim[] = RBOND_VERSION;
