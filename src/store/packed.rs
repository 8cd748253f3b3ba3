//! Numbers and byte strings packed into a file of our own, and how to take them out again without trusting them.

/// Writes.
#[derive(Debug, Default)]
pub struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    /// Appends a number, seven bits a byte, the least first.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Appends a number that may be negative: small ones take few bytes either way.
    pub fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    /// Appends bytes behind their number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Appends bytes whose number is known to the reader.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a list of numbers as their differences.
    pub fn list(&mut self, numbers: impl ExactSizeIterator<Item = u32>) {
        self.number(numbers.len() as u64);
        let mut last = -1;
        for number in numbers {
            self.signed(i64::from(number) - last - 1);
            last = i64::from(number);
        }
    }

    /// Returns what was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads. Every method returns `None` where the bytes cannot be what is asked for.
#[derive(Debug)]
pub struct Unpacker<'a> {
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Tells whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads a number.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Reads a number that may be negative.
    pub fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Reads how many of something follow: never more than there are bytes left.
    pub fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.rest.len()).then_some(count)
    }

    /// Reads bytes behind their number.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.count()?;
        self.raw(count)
    }

    /// Reads this many bytes.
    pub fn raw(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Reads a list of numbers below `end`.
    pub fn list(&mut self, end: usize) -> Option<Vec<u32>> {
        let count = self.count()?;
        let mut last: i64 = -1;
        let mut next = || {
            last = last.checked_add(self.signed()?)?.checked_add(1)?;
            u32::try_from(last).ok().filter(|number| (*number as usize) < end)
        };
        (0..count).map(|_| next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let mut packer = Packer::default();
        let numbers = [0, 1, 127, 128, 1 << 40, u64::MAX];
        let signed = [0, -1, 1, 63, -64, 64, i64::MIN, i64::MAX];
        let list = [7, 8, 9, 3, 3, u32::MAX - 1];
        numbers.iter().for_each(|number| packer.number(*number));
        signed.iter().for_each(|number| packer.signed(*number));
        packer.bytes(b"text");
        packer.list(list.iter().copied());
        let bytes = packer.finish();
        let mut unpacker = Unpacker::new(&bytes);
        assert_eq!(numbers.map(|_| unpacker.number()), numbers.map(Some));
        assert_eq!(signed.map(|_| unpacker.signed()), signed.map(Some));
        assert_eq!(unpacker.bytes(), Some(b"text".as_slice()));
        assert_eq!(unpacker.list(u32::MAX as usize), Some(list.to_vec()));
        assert!(unpacker.is_empty());
    }

    #[test]
    fn neighbours_in_a_list_take_a_byte_each() {
        let mut packer = Packer::default();
        packer.list(1000..1100);
        assert_eq!(packer.finish().len(), 1 + 2 + 99);
    }

    #[test]
    fn nonsense_is_nothing() {
        assert_eq!(Unpacker::new(&[0xff; 20]).number(), None);
        assert_eq!(Unpacker::new(&[0x80]).number(), None);
        assert_eq!(Unpacker::new(&[3, 1, 2]).bytes(), None);
        assert_eq!(Unpacker::new(&[2, 0, 0]).list(1), None);
        assert_eq!(Unpacker::new(&[200, 1, 0]).list(1), None);
        assert_eq!(Unpacker::new(&[1, 1]).list(9), None, "before the first");
    }
}
