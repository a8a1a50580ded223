//! Lengths of one to ten bytes: seven bits a byte, lowest first, the top bit set on all but the last.

const LEN_MAX: usize = 10;

/// The bytes of a number and how many of them count.
#[inline]
pub(crate) fn encode(number: u64) -> ([u8; LEN_MAX], usize) {
    let mut bytes = [0; LEN_MAX];
    if number < 0x80 {
        bytes[0] = (number & 0x7F) as u8;
        return (bytes, 1);
    }
    encode_long(number, bytes)
}

fn encode_long(mut number: u64, mut bytes: [u8; LEN_MAX]) -> ([u8; LEN_MAX], usize) {
    let mut len = 0;
    for byte in &mut bytes {
        len += 1;
        let low = (number & 0x7F) as u8;
        number >>= 7;
        if number == 0 {
            *byte = low;
            break;
        }
        *byte = low | 0x80;
    }
    (bytes, len)
}

/// Appends a number.
#[inline]
pub(crate) fn append(number: u64, out: &mut Vec<u8>) {
    let (bytes, len) = encode(number);
    out.extend_from_slice(bytes.get(..len).unwrap_or_default());
}

/// How many bytes a number takes.
#[inline]
pub(crate) fn len(number: u64) -> usize {
    let bits = (u64::BITS - number.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

/// Reads a number; none when it is cut short or too long.
#[inline]
pub(crate) fn decode(bytes: &[u8]) -> Option<(u64, &[u8])> {
    if let Some((&byte, rest)) = bytes.split_first()
        && byte & 0x80 == 0
    {
        return Some((byte.into(), rest));
    }
    decode_long(bytes)
}

fn decode_long(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().take(LEN_MAX).enumerate() {
        number |= u64::from(byte & 0x7F) << (7 * at as u32);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_cut_ones_do_not() {
        for number in [0, 1, 127, 128, 300, 1 << 32, u64::MAX] {
            let mut bytes = Vec::new();
            append(number, &mut bytes);
            assert_eq!(len(number), bytes.len());
            assert_eq!(decode(&bytes), Some((number, &[][..])));
            bytes.pop();
            assert_eq!(decode(&bytes), None);
        }
    }
}
