#include "textflag.h"

// func clone(args unsafe.Pointer, size uintptr, f *Frame) int
TEXT ·clone(SB), NOSPLIT, $0-32
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	f+16(FP), R12	// survives the system call
	MOVL	$435, AX	// clone3
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, ret+24(FP)
	RET
child:
	// SP is the end of the child's own stack. run takes its argument from there.
	SUBQ	$16, SP
	MOVQ	R12, 0(SP)
	LEAQ	·run(SB), AX	// on a stack of its own: the linker would add it to this one
	CALL	AX
	UD2	// run does not return

// func split(args unsafe.Pointer, size uintptr) int
TEXT ·split(SB), NOSPLIT, $0-24
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVL	$435, AX	// clone3
	SYSCALL
	TESTQ	AX, AX
	JGT	end
	MOVQ	AX, ret+16(FP)
	RET
end:
	// From here on nothing but registers: the stack is the other's.
	XORL	DI, DI
	MOVL	$231, AX	// exit_group
	SYSCALL
	JMP	end

// func beget(flags, stack uintptr, pidfd unsafe.Pointer, tls uintptr, f *Frame) int
TEXT ·beget(SB), NOSPLIT, $0-48
	MOVQ	flags+0(FP), DI
	MOVQ	stack+8(FP), SI
	MOVQ	pidfd+16(FP), DX
	XORL	R10, R10
	MOVQ	tls+24(FP), R8
	MOVQ	f+32(FP), R12	// survives the system call
	MOVL	$56, AX	// clone
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, ret+40(FP)
	RET
child:
	SUBQ	$16, SP
	MOVQ	R12, 0(SP)
	LEAQ	·run(SB), AX	// on a stack of its own: the linker would add it to this one
	CALL	AX
	UD2	// run does not return
