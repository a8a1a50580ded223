//! Which partition, and so which reduce task, a key belongs to.
//!
//! Every map task on every machine must agree, in every version that shares a job, so the hash is a
//! fixed, portable one; the hash tables inside a process use a faster one.

/// The partition of an encoded key, below `partitions`.
///
/// Equal keys have equal encodings (see [`encode`](crate::value::key::encode)), so they meet in one
/// partition. With zero or one partitions the answer is 0.
#[must_use]
pub fn partition_of(encoded: &[u8], partitions: u32) -> u32 {
    if partitions <= 1 {
        return 0;
    }
    let digest = blake3::hash(encoded);
    let head = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    // Multiply-shift instead of a remainder: as even, and cheaper.
    let scaled = (u128::from(u64::from_le_bytes(head)) * u128::from(partitions)) >> 64;
    u32::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_even_and_in_range() {
        let mut counts = [0_u32; 7];
        for number in 0..7000_u32 {
            let partition = partition_of(&number.to_le_bytes(), 7);
            *counts.get_mut(partition as usize).unwrap_or(&mut 0) += 1;
        }
        assert_eq!(counts.iter().sum::<u32>(), 7000);
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }

    #[test]
    fn the_function_is_frozen() {
        // Stored blocks are addressed by it: a change here loses keys of running jobs.
        assert_eq!(partition_of(b"\x0faviary", 1000), 194);
        assert_eq!(partition_of(b"", 1), 0);
    }
}
