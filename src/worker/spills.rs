//! How much a worker may write to temporary files: all of its tasks together.
//!
//! A reduce task with more runs than it merges at once writes what it has merged so far to files that have no
//! name, in `TMPDIR`. These are gone when their process is, however it ended, so there is nothing to clean up.

use crate::config;
use crate::shuffle::TempSpace;

/// The room for temporary files of one worker.
#[derive(Debug, Clone)]
pub struct Spills {
    /// The room.
    pub space: TempSpace,
    /// Whether a person has set it; else it follows from the disk.
    pub is_set: bool,
}

impl Spills {
    /// Room for so many bytes, or by default for a part of what the disk has free now.
    #[must_use]
    pub fn new(bytes_max: Option<u64>) -> Self {
        let is_set = bytes_max.is_some();
        let bytes_max = bytes_max.unwrap_or_else(|| {
            free_bytes(&std::env::temp_dir())
                .map_or(config::SPILL_BYTES_DEFAULT, |free| free / config::SPILL_PART_OF_FREE)
        });
        Self { space: TempSpace::new(bytes_max), is_set }
    }
}

/// What the disk of a directory has free for this user, in bytes.
fn free_bytes(dir: &std::path::Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(dir).ok()?;
    disk.blocks_available().checked_mul(disk.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_disk_is_given_unless_a_person_says_otherwise() {
        let spills = Spills::new(Some(7));
        assert!(spills.is_set && spills.space.bytes_max() == 7);
        let spills = Spills::new(None);
        let free = free_bytes(&std::env::temp_dir()).unwrap();
        assert!(!spills.is_set && spills.space.bytes_max() > 0);
        // Others write to this disk too.
        assert!(spills.space.bytes_max() < free, "{spills:?}, {free}");
        assert_eq!(free_bytes(std::path::Path::new("/nowhere")), None);
    }
}
