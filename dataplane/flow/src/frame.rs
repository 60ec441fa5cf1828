//! A frame in a packet buffer, with room in front for outer headers.

/// A frame: `len` bytes from `start` in `buf`.
pub struct Frame<'a> {
    buf: &'a mut [u8],
    start: usize,
    len: usize,
    /// Length of the longest segment, if the frame is segmented later; else 0.
    unit: usize,
}

impl<'a> Frame<'a> {
    /// A frame in a buffer. `None`: it does not lie within the buffer.
    #[inline(always)]
    pub fn new(buf: &'a mut [u8], start: usize, len: usize) -> Option<Self> {
        (start <= buf.len() && len <= buf.len() - start).then_some(Frame { buf, start, len, unit: 0 })
    }

    /// The same frame, to be segmented later into frames of at most `unit` bytes: until then it may be longer than the
    /// wire's MTU. 0: it is not segmented.
    #[inline(always)]
    #[must_use]
    pub fn in_units(self, unit: usize) -> Self {
        Frame { unit, ..self }
    }

    /// Length of the longest frame on the wire, where this frame is `len` bytes long.
    #[inline(always)]
    pub(crate) fn longest(&self, len: usize) -> usize {
        if self.unit == 0 { len } else { self.unit }
    }

    /// The bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The bytes, to be edited.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }

    /// Where the frame starts in its buffer.
    #[inline(always)]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Its length.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `n` bytes off the front. `false`: it has fewer, and is unchanged.
    #[inline(always)]
    #[must_use]
    pub fn pull(&mut self, n: usize) -> bool {
        let fits = n <= self.len;
        if fits {
            self.start += n;
            self.len -= n;
        }
        fits
    }

    /// Keeps `len` bytes from byte `from` on. `false`: it has fewer, and is unchanged.
    #[inline(always)]
    #[must_use]
    pub fn cut(&mut self, from: usize, len: usize) -> bool {
        let fits = from <= self.len && len <= self.len - from;
        if fits {
            self.start += from;
            self.len = len;
        }
        fits
    }

    /// Adds `n` bytes at the front and returns the whole frame. `None`: there is no room, and the frame is unchanged.
    #[inline(always)]
    pub fn push(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.start {
            return None;
        }
        self.start -= n;
        self.len += n;
        self.buf.get_mut(self.start..self.start + self.len)
    }

    /// Adds `N` bytes at the front and returns them. `None`: there is no room, and the frame is unchanged.
    #[inline(always)]
    pub fn push_array<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let start = self.start.checked_sub(N)?;
        let added = self.buf.get_mut(start..)?.first_chunk_mut()?;
        self.start = start;
        self.len += N;
        Some(added)
    }

    /// Moves the first `n` bytes `by` bytes towards the back and drops the `by` bytes that they cover: takes a header
    /// out from behind them.
    pub fn close_gap(&mut self, n: usize, by: usize) -> bool {
        if n + by > self.len {
            return false;
        }
        let start = self.start;
        self.buf.copy_within(start..start + n, start + by);
        self.pull(by)
    }

    /// Moves the first `n` bytes `by` bytes towards the front: makes room for a header behind them.
    pub fn open_gap(&mut self, n: usize, by: usize) -> bool {
        if by > self.start || n > self.len {
            return false;
        }
        let start = self.start;
        self.buf.copy_within(start..start + n, start - by);
        self.start -= by;
        self.len += by;
        true
    }
}
