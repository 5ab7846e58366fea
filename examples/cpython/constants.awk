# Lines "NAME [MACRO VALUE]" as initializers: NAME is there if MACRO (else NAME itself) is defined.
/^#/ || !NF { next }
{
    guard = NF > 1 ? $2 : $1
    value = NF > 2 ? $3 : $1
    printf("#ifdef %s\n    {\"%s\", (long long)(%s)},\n#endif\n", guard, $1, value)
}
