//! The alphabet in which byte-level tokens are written: every byte has a printable character.
//!
//! Bytes that are printable in Latin-1 stand for themselves, the other 68 for U+0100 onwards in order. Source: GPT-2's
//! `bytes_to_unicode`, which all byte-level BPE models kept.

/// The character that stands for a byte.
pub(crate) fn char_of(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        0..=0x20 => shifted(u32::from(byte)),
        0x7F..=0xA0 => shifted(u32::from(byte) - 0x7F + 0x21),
        0xAD => shifted(0x43),
    }
}

fn shifted(n: u32) -> char {
    char::from_u32(0x100 + n).expect("U+0100 to U+0143 are letters")
}

/// The byte that a character stands for.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        n @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(n as u8),
        n @ 0x100..=0x120 => Some((n - 0x100) as u8),
        n @ 0x121..=0x142 => Some((n - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let chars: std::collections::HashSet<char> = (0..=255).map(char_of).collect();
        assert_eq!(chars.len(), 256);
        assert!((0..=255).all(|b| byte_of(char_of(b)) == Some(b)));
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!(byte_of('日'), None);
    }

    #[test]
    fn the_alphabet_is_the_one_the_tokenizers_crate_uses() {
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert!((0..=255).all(|b| theirs.contains(&char_of(b))));
    }
}
