// What every assembler has: sections, data, alignment, symbols, relocations, macros of both kinds.
#define WORD(x) .long x
#ifdef __ARM_ARCH
#define ARCHITECTURE __ARM_ARCH
#else
#define ARCHITECTURE 0
#endif

	.section .rodata.golden, "a"
	.balign 8
	.globl golden_table
golden_table:
	WORD(ARCHITECTURE)
	WORD(golden_table)
	WORD(golden_end - golden_table)
	.short 1, 2, 0xffff
	.byte 'a', 7
	.uleb128 300
	.asciz "golden"
golden_end:
	.macro repeat_twice value
	.byte \value
	.byte \value + 1
	.endm
	.data
	repeat_twice 5
	.weak golden_elsewhere
	.balign 4
	WORD(golden_elsewhere)
	.bss
	.space 12
