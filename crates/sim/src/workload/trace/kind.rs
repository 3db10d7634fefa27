//! Kinds of files and their names.

use std::fmt;

/// Mooncake's blocks.
const MOONCAKE_BLOCK_TOKENS: u32 = 512;
/// Bailian's blocks.
const BAILIAN_BLOCK_TOKENS: u32 = 16;

/// What a file is made of; with the tokens of a block where prompts are made of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::workload) enum Kind {
    Azure,
    BurstGpt,
    Mooncake(u32),
    Bailian(u32),
    Lengths,
}

/// Why there is no such kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::workload) enum NoKind {
    /// Nobody knows it.
    Unknown,
    /// What follows `@` is wrong.
    Block,
}

impl fmt::Display for NoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoKind::Unknown => {
                write!(f, "it is one of {}", crate::workload::Workload::FILES.join(", "))
            }
            NoKind::Block => f.write_str(
                "behind @ stands how many tokens a block has, at least 1, and only for mooncake and bailian",
            ),
        }
    }
}

impl Kind {
    /// The kind of this name, such as `azure` or `mooncake@256`.
    pub(in crate::workload) fn named(name: &str) -> Result<Kind, NoKind> {
        let (name, block) = match name.split_once('@') {
            None => (name, None),
            Some((name, block)) => (name, Some(block)),
        };
        let size = block.map(|block| block.parse::<u32>().ok().filter(|size| *size > 0));
        let size_or = |usual| match size {
            None => Ok(usual),
            Some(None) => Err(NoKind::Block),
            Some(Some(size)) => Ok(size),
        };
        let kind = match name {
            "azure" => Kind::Azure,
            "burstgpt" => Kind::BurstGpt,
            "lengths" => Kind::Lengths,
            "mooncake" => return Ok(Kind::Mooncake(size_or(MOONCAKE_BLOCK_TOKENS)?)),
            "bailian" => return Ok(Kind::Bailian(size_or(BAILIAN_BLOCK_TOKENS)?)),
            _ => return Err(NoKind::Unknown),
        };
        if block.is_some() { Err(NoKind::Block) } else { Ok(kind) }
    }
}
