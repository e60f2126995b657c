//! How much memory this machine has, and how byte counts are written for people.
//!
//! Must not know what the memory is wanted for.

use std::fmt;

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::error::Error;

/// Memory of the machine or of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What is built in, or what the process may use of it where that is less.
    pub total: u64,
    /// What can be handed out now. Pages of files that can be read again count as free.
    pub available: u64,
}

impl Memory {
    /// The machine's main memory, within the limits of the control group that this process runs in.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn of_machine() -> Result<Self, Error> {
        let mut system = System::new().map_err(|error| Error::MemoryUnknown(error.to_string()))?;
        system.refresh_memory();
        let machine = Self { total: system.total_memory(), available: system.available_memory() };
        let Ok(own) = sysinfo::get_current_pid() else { return Ok(machine) };
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), true, ProcessRefreshKind::nothing());
        let limits = system.process(own).and_then(sysinfo::Process::cgroup_limits).or_else(|| system.cgroup_limits());
        // What the group holds of files does not count against it: such pages are given up for others.
        Ok(limits.map_or(machine, |limits| machine.within(limits.total_memory, limits.rss)))
    }

    /// This much of it, where a group of processes may use `limit` bytes and holds `held`.
    fn within(self, limit: u64, held: u64) -> Self {
        Self { total: self.total.min(limit), available: self.available.min(limit.saturating_sub(held)) }
    }
}

/// A number of bytes as people read it: three digits and a decimal unit, as in `4.92 GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        // 999.5 would be written with four digits.
        while value >= 999.5 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        let decimals = match value {
            _ if unit == 0 => 0,
            small if small < 9.995 => 2,
            medium if medium < 99.95 => 1,
            _ => 0,
        };
        formatter.pad(&format!("{value:.decimals$} {}", UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (98_362_432, "98.4 MB"),
            (999_600_000, "1.00 GB"),
            (4_920_000_000, "4.92 GB"),
            (263_193_047_040, "263 GB"),
            (1_500_000_000_000_000, "1500 TB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>9}|", Bytes(1000)), "  1.00 kB|");
    }

    #[test]
    fn a_group_of_processes_has_what_its_limit_leaves() {
        let machine = Memory { total: 100, available: 80 };
        assert_eq!(machine.within(50, 10), Memory { total: 50, available: 40 });
        assert_eq!(machine.within(200, 10), machine);
        assert_eq!(machine.within(50, 60), Memory { total: 50, available: 0 });
    }

    #[test]
    fn the_machine_has_some() {
        let memory = Memory::of_machine().unwrap();
        assert!(memory.available > 0 && memory.available <= memory.total, "{memory:?}");
    }
}
