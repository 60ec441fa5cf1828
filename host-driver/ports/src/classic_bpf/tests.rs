//! Ranges and the search among them, on an interpreter of the instructions that a search has.

use super::*;

/// Whether the program accepts an accumulator.
fn accepts(program: &[libc::sock_filter], accumulator: u32) -> bool {
    let mut at = 0;
    loop {
        let instruction = program[at];
        at += 1;
        match u32::from(instruction.code) {
            code if code == u32::from(ACCEPT.code) => return instruction.k != 0,
            code if code == u32::from(jump(0).code) => at += instruction.k as usize,
            code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                let taken = accumulator >= instruction.k;
                at += usize::from(if taken { instruction.jt } else { instruction.jf });
            }
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn program(numbers: &[u32]) -> Vec<libc::sock_filter> {
    search(&ranges(numbers.iter().copied().collect()), false, &[ACCEPT])
}

#[test]
fn a_search_accepts_the_numbers_and_no_other() {
    let some = [0, 1, 2, 7, 100, 101, 5000, 0xff_ffff, u32::MAX - 1, u32::MAX];
    let many: Vec<u32> = (0..MAX_RANGES as u32).map(|n| n * n * 1000).collect();
    for numbers in [&[][..], &[5001], &some, &many] {
        let program = program(numbers);
        for near in numbers.iter().chain(&[0, 6, u32::MAX]) {
            for number in [near.wrapping_sub(1), *near, near.wrapping_add(1)] {
                assert_eq!(accepts(&program, number), numbers.contains(&number), "{number} of {numbers:?}");
            }
        }
    }
}

#[test]
fn too_many_numbers_are_accepted_with_the_smallest_gaps_between_them() {
    let numbers: Vec<u32> = (0..50_000).map(|n| n * 10 + u32::from(n >= 40_000) * 1_000_000).collect();
    let program = program(&numbers);
    assert!(program.len() < 5 * MAX_RANGES, "{} instructions", program.len());
    assert!(numbers.iter().all(|number| accepts(&program, *number)));
    for number in [399_991, 1_399_999, 2_000_000] {
        assert!(!accepts(&program, number), "{number}");
    }
}
