/* At link time in place of the real libibverbs: of it there is nothing but the name. */
extern const char rbond_stand_in[];

__attribute__((visibility("default"))) const char rbond_stand_in[] = "";
