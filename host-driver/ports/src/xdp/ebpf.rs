//! An assembler for eBPF (instruction-set.rst): the instructions that the filter needs, with labels for jumps.

use zerocopy::{Immutable, IntoBytes};

/// An instruction: the kernel's `struct bpf_insn`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination and source.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register. R0 is the program's result, a call overwrites R1 to R5, its arguments, and preserves R6 to R9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R6 = 6,
    R7,
    R8,
    /// Points behind the program's stack.
    R10 = 10,
}

/// Width of a load.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// Condition of a jump. It compares 32 bits, so that a packet's word is not sign-extended.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Equal = 0x10,
    NotEqual = 0x50,
}

/// A target of jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

// Classes and operations of an instruction's code.
const LOAD_WIDE: u8 = 0x18;
const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const STORE_IMMEDIATE: u8 = 0x62;
const ALU64: u8 = 0x07;
const JUMP: u8 = 0x05;
const JUMP32: u8 = 0x06;
const ADD: u8 = 0x00;
const OR: u8 = 0x40;
const AND: u8 = 0x50;
const NOT_EQUAL: u8 = 0x50;
const SHIFT_LEFT: u8 = 0x60;
const MOVE: u8 = 0xb0;
const GREATER: u8 = 0x20;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// The second operand is a register, not the immediate.
const REGISTER: u8 = 0x08;
/// The immediate of a wide load is a map's file descriptor.
const MAP: u8 = 1;

/// A program under construction.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    /// Index of each label's instruction; `None` until it is placed.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn push(&mut self, code: u8, dst: u8, src: u8, offset: i16, immediate: i32) {
        // Two bit fields of C: the first one lies where the byte begins.
        let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
        self.code.push(Instruction { code, registers, offset, immediate });
    }

    /// Creates a label, to be [placed](Self::place) later.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places a label at the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// `to = *(from + at)`, in the packet's byte order.
    pub(super) fn load(&mut self, size: Size, to: Register, from: Register, at: i16) {
        self.push(LOAD | size as u8, to as u8, from as u8, at, 0);
    }

    /// `*(to + at) = from`, a word.
    pub(super) fn store(&mut self, to: Register, at: i16, from: Register) {
        self.push(STORE, to as u8, from as u8, at, 0);
    }

    /// `*(to + at) = 0`, a word.
    pub(super) fn store_zero(&mut self, to: Register, at: i16) {
        self.push(STORE_IMMEDIATE, to as u8, 0, at, 0);
    }

    /// `to` = address of the map with this file descriptor.
    pub(super) fn load_map(&mut self, to: Register, fd: i32) {
        self.push(LOAD_WIDE, to as u8, MAP, 0, fd);
        self.push(0, 0, 0, 0, 0);
    }

    /// `to = from`
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.push(ALU64 | MOVE | REGISTER, to as u8, from as u8, 0, 0);
    }

    /// `to = value`
    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.push(ALU64 | MOVE, to as u8, 0, 0, value);
    }

    /// `to += value`
    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.push(ALU64 | ADD, to as u8, 0, 0, value);
    }

    /// `to += other`
    pub(super) fn add_register(&mut self, to: Register, other: Register) {
        self.push(ALU64 | ADD | REGISTER, to as u8, other as u8, 0, 0);
    }

    /// `to &= bits`
    pub(super) fn and(&mut self, to: Register, bits: i32) {
        self.push(ALU64 | AND, to as u8, 0, 0, bits);
    }

    /// `to |= bits`
    pub(super) fn or(&mut self, to: Register, bits: i32) {
        self.push(ALU64 | OR, to as u8, 0, 0, bits);
    }

    /// `to <<= by`
    pub(super) fn shift_left(&mut self, to: Register, by: i32) {
        self.push(ALU64 | SHIFT_LEFT, to as u8, 0, 0, by);
    }

    /// Jumps to `label` if `a > b`, as addresses.
    pub(super) fn jump_if_beyond(&mut self, a: Register, b: Register, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP | GREATER | REGISTER, a as u8, b as u8, 0, 0);
    }

    /// Jumps to `label` if `register` compares with `value` as `when` says.
    pub(super) fn jump_if(&mut self, register: Register, when: When, value: u32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP32 | when as u8, register as u8, 0, 0, value.cast_signed());
    }

    /// Jumps to `label` if an address is not null.
    pub(super) fn jump_if_some(&mut self, register: Register, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP | NOT_EQUAL, register as u8, 0, 0, 0);
    }

    /// Jumps to `label`.
    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP, 0, 0, 0, 0);
    }

    /// Calls a kernel helper, by its number in linux/bpf.h.
    pub(super) fn call(&mut self, function: i32) {
        self.push(JUMP | CALL, 0, 0, 0, function);
    }

    /// Ends the program.
    pub(super) fn exit(&mut self) {
        self.push(JUMP | EXIT, 0, 0, 0, 0);
    }

    /// The finished program. All labels of jumps must have been placed.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].expect("a label that is jumped to has been placed");
            // Counted from the next instruction; the longest program here has some dozens.
            self.code[at].offset = (target as isize - at as isize - 1) as i16;
        }
        self.code
    }
}
