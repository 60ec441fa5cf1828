//! The inputs of each target, and what comes near them, in an ordinary build.

use culvert_fuzz::{TARGETS, corpus};

/// Mutations of each input.
const MUTATIONS: usize = 20;

/// Numbers without any pattern, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 29) as usize % limit.max(1)
    }

    /// Changes, cuts or repeats a little of an input.
    fn mutate(&mut self, input: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_slice(&input[at.min(input.len())..]),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = [0, 0xff, *byte ^ 1, *byte ^ 0x80, self.below(256) as u8][self.below(5)];
                    }
                }
            }
        }
        bytes
    }
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn every_target_takes_its_inputs_and_what_is_near_them() {
    for target in TARGETS {
        let mut random = Random(1);
        let inputs = corpus::inputs(target).expect("the corpus can be read");
        assert!(!inputs.is_empty(), "{} has no seeds", target.name);
        let mut before = None;
        for (name, input) in &inputs {
            println!("{}: {name}", target.name);
            (target.run)(input);
            for _ in 0..MUTATIONS {
                let mutated = random.mutate(input);
                println!("{}", corpus::print(&mutated));
                (target.run)(&mutated);
            }
            // What a run opens or starts ends with it; the first makes what all use.
            let now = (entries("/proc/self/fd"), entries("/proc/self/task"));
            let (files, threads) = *before.get_or_insert(now);
            assert!(
                now.0 <= files + 8 && now.1 <= threads + 4,
                "{}: {now:?} after {files}, {threads}",
                target.name
            );
        }
        (target.run)(&[]);
    }
}
