#include "textflag.h"

// func clone(args unsafe.Pointer, size uintptr, f *Frame) int
TEXT ·clone(SB), NOSPLIT|NOFRAME, $0-32
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	f+16(FP), R19	// survives the system call
	MOVD	$435, R8	// clone3
	SVC
	CBZ	R0, child
	MOVD	R0, ret+24(FP)
	RET
child:
	// RSP is the end of the child's own stack. run takes its argument from
	// there, after a word for the return address.
	SUB	$32, RSP
	MOVD	R19, 8(RSP)
	MOVD	$·run(SB), R1	// on a stack of its own: the linker would add it to this one
	BL	(R1)
	UNDEF	// run does not return

// func split(args unsafe.Pointer, size uintptr) int
TEXT ·split(SB), NOSPLIT|NOFRAME, $0-24
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$435, R8	// clone3
	SVC
	CMP	$0, R0
	BGT	end
	MOVD	R0, ret+16(FP)
	RET
end:
	// From here on nothing but registers: the stack is the other's.
	MOVD	ZR, R0
	MOVD	$94, R8	// exit_group
	SVC
	B	end

// func beget(flags, stack uintptr, pidfd unsafe.Pointer, tls uintptr, f *Frame) int
TEXT ·beget(SB), NOSPLIT|NOFRAME, $0-48
	MOVD	flags+0(FP), R0
	MOVD	stack+8(FP), R1
	MOVD	pidfd+16(FP), R2
	MOVD	tls+24(FP), R3	// the other way round than on x86
	MOVD	ZR, R4
	MOVD	f+32(FP), R19	// survives the system call
	MOVD	$220, R8	// clone
	SVC
	CBZ	R0, child
	MOVD	R0, ret+40(FP)
	RET
child:
	SUB	$32, RSP
	MOVD	R19, 8(RSP)
	MOVD	$·run(SB), R1	// on a stack of its own: the linker would add it to this one
	BL	(R1)
	UNDEF	// run does not return
