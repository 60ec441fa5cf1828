//! How far a target is, from libFuzzer's lines: `#1024 pulse cov: 120 ft: 300 corp: 40/2Kb exec/s: 512 rss: 60Mb`.

use std::fmt;

/// Numbers of the last such line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    executions: u64,
    coverage: String,
    corpus: String,
    rate: String,
    memory: String,
}

impl Progress {
    /// Takes a line of the log; most are of no interest.
    pub(super) fn read(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix('#') else { return };
        let mut words = rest.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.parse().ok()) else { return };
        self.executions = executions;
        let words: Vec<&str> = words.collect();
        for pair in words.windows(2) {
            let field = match pair[0] {
                "cov:" => &mut self.coverage,
                "corp:" => &mut self.corpus,
                "exec/s:" => &mut self.rate,
                "rss:" => &mut self.memory,
                _ => continue,
            };
            pair[1].clone_into(field);
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, coverage, corpus, rate, memory } = self;
        if *executions == 0 {
            return f.write_str("reads its corpus");
        }
        write!(f, "{executions} executions, {rate} a second, coverage {coverage}, corpus {corpus}, {memory}")
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn libfuzzers_lines_are_read() {
        let mut progress = Progress::default();
        progress.read("INFO: Seed: 1");
        assert_eq!(progress.to_string(), "reads its corpus");
        progress
            .read("#2097152\tpulse  cov: 812 ft: 2011 corp: 350/21Kb lim: 4096 exec/s: 699050 rss: 501Mb");
        progress.read("#2100000\tREDUCE cov: 813");
        assert_eq!(
            progress.to_string(),
            "2100000 executions, 699050 a second, coverage 813, corpus 350/21Kb, 501Mb"
        );
    }
}
