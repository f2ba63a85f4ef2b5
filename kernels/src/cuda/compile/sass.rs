//! The instructions of a kernel, read from its machine code.
//!
//! From Volta on an instruction is 16 bytes, and the low 9 of its low 12 bits name the operation (the upper three say
//! where the operands are). The few numbers below were read off `nvdisasm` 13.0 and hold from sm_70 to sm_90; a test
//! compares them with `nvdisasm` where that is installed. Reading them here needs no tool beside the program.

use std::collections::BTreeMap;

/// Operations that tell what a kernel computes with.
const OPERATIONS: [(u16, &str); 12] = [
    (0x023, "FFMA"),
    (0x031, "HFMA2"),
    (0x02b, "DFMA"),
    (0x026, "IDP"),
    (0x03c, "HMMA"),
    (0x037, "IMMA"),
    (0x024, "IMAD"),
    (0x012, "LOP3"),
    (0x016, "PRMT"),
    (0x184, "LDS"),
    (0x183, "LDL"),
    (0x187, "STL"),
];

/// How often each known operation stands in the machine code of `entry`; `None` where the file is no cubin with such a
/// function.
pub fn operations(cubin: &[u8], entry: &str) -> Option<BTreeMap<&'static str, u32>> {
    let code = section(cubin, &format!(".text.{entry}"))?;
    let mut out = BTreeMap::new();
    for instruction in code.chunks_exact(16) {
        let opcode = u16::from_le_bytes([instruction[0], instruction[1]]) & 0x1ff;
        if let Some((_, name)) = OPERATIONS.iter().find(|(code, _)| *code == opcode) {
            *out.entry(*name).or_insert(0) += 1;
        }
    }
    Some(out)
}

/// Loads from global memory: to registers, and straight to shared memory. Bits 9 to 11 of the upper half of one say how wide
/// it is: U8, S8, U16, S16, 32, 64, 128. Read off `nvdisasm` as above. Bulk copies have no width of this kind.
const LOADS: [u16; 2] = [0x181, 0x1ae];

/// Bytes of the widest load from global memory in the machine code of `entry`; `None` where it has none, or where the file
/// is no cubin with such a function.
pub fn widest_load(cubin: &[u8], entry: &str) -> Option<u32> {
    let code = section(cubin, &format!(".text.{entry}"))?;
    let loads = code.chunks_exact(16).filter(|i| LOADS.contains(&(u16::from_le_bytes([i[0], i[1]]) & 0x1ff)));
    let width = |i: &[u8]| match i[9] >> 1 & 7 {
        0 | 1 => Some(1),
        2 | 3 => Some(2),
        4 => Some(4),
        5 => Some(8),
        6 => Some(16),
        _ => None,
    };
    loads.filter_map(width).max()
}

/// The instruction classes of KERNELS.md that operations make up, in a fixed order.
///
/// `lut` says that shared memory is read, which a table look-up needs and a reduction does too.
pub fn classes(operations: &BTreeMap<&'static str, u32>) -> Vec<String> {
    let any = |names: &[&str]| names.iter().any(|n| operations.contains_key(n));
    let all: [(&str, &[&str]); 5] = [
        ("hmma", &["HMMA"]),
        ("imma", &["IMMA"]),
        ("idp", &["IDP"]),
        ("fma", &["FFMA", "HFMA2", "DFMA"]),
        ("lut", &["LDS"]),
    ];
    all.into_iter().filter(|(_, ops)| any(ops)).map(|(class, _)| class.to_owned()).collect()
}

/// Whether the classes found are those of a kernel that declares `expected`: a dot product or matrix instruction must
/// be there, and where none is declared none may be.
pub fn is_expected(expected: &str, found: &[String]) -> bool {
    let has = |class: &str| found.iter().any(|f| f == class);
    let special = has("hmma") || has("imma") || has("idp");
    match expected {
        "none" => !special,
        "fma" | "lut" => has(expected) && !special,
        class => has(class),
    }
}

/// The contents of a section of a 64-bit little-endian ELF file.
fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let u16_at = |at: usize| Some(usize::from(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?)));
    let u32_at = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) as usize);
    let u64_at = |at: usize| usize::try_from(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?)).ok();
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) = (u64_at(0x28)?, u16_at(0x3a)?, u16_at(0x3c)?, u16_at(0x3e)?);
    let header = |index: usize| table.checked_add(size.checked_mul(index)?);
    let names_at = u64_at(header(names)?.checked_add(0x18)?)?;
    for index in 0..count {
        let at = header(index)?;
        let start = names_at.checked_add(u32_at(at)?)?;
        let found = elf.get(start..)?.split(|&b| b == 0).next()?;
        if found == name.as_bytes() {
            let (offset, len) = (u64_at(at.checked_add(0x18)?)?, u64_at(at.checked_add(0x20)?)?);
            return elf.get(offset..offset.checked_add(len)?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cubin of one section, with these opcodes.
    fn cubin(entry: &str, opcodes: &[u16]) -> Vec<u8> {
        let names = format!("\0.text.{entry}\0");
        let mut out = vec![0u8; 0x40];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let code_at = out.len();
        for &op in opcodes {
            let mut word = [0u8; 16];
            word[..2].copy_from_slice(&op.to_le_bytes());
            out.extend(word);
        }
        let names_at = out.len();
        out.extend(names.as_bytes());
        let table = out.len();
        let mut header = |name: u32, offset: usize, len: usize| {
            let mut h = [0u8; 0x40];
            h[..4].copy_from_slice(&name.to_le_bytes());
            h[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            h[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            out.extend(h);
        };
        header(0, names_at, names.len());
        header(1, code_at, opcodes.len() * 16);
        out[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        out[0x3a..0x3c].copy_from_slice(&0x40u16.to_le_bytes());
        out[0x3c..0x3e].copy_from_slice(&2u16.to_le_bytes());
        out[0x3e..0x40].copy_from_slice(&0u16.to_le_bytes());
        out
    }

    #[test]
    fn operations_are_counted_whatever_form_their_operands_have() {
        // FFMA with a register, with an immediate and with a constant; IDP twice; something unknown.
        let file = cubin("k", &[0x7223, 0x7823, 0x7a23, 0x7226, 0x7c26, 0x0918]);
        let found = operations(&file, "k").unwrap();
        assert_eq!(found, BTreeMap::from([("FFMA", 3), ("IDP", 2)]));
        assert_eq!(classes(&found), ["idp", "fma"]);
    }

    #[test]
    fn the_widest_load_counts_and_a_kernel_without_one_has_no_width() {
        let file = |loads: &[(u16, u8)]| {
            let opcodes: Vec<u16> = loads.iter().map(|&(opcode, _)| opcode).collect();
            let mut file = cubin("k", &opcodes);
            // The code comes first behind the header of the file.
            for (i, &(_, width)) in loads.iter().enumerate() {
                file[0x40 + 16 * i + 9] = width << 1 | 1;
            }
            file
        };
        // Loads with and without a descriptor, a copy to shared memory, and a store, which is as wide and no load.
        assert_eq!(widest_load(&file(&[(0x7381, 4), (0x7981, 5), (0x7986, 6)]), "k"), Some(8));
        assert_eq!(widest_load(&file(&[(0x7381, 0), (0x7fae, 6)]), "k"), Some(16));
        assert_eq!(widest_load(&file(&[(0x7981, 3)]), "k"), Some(2));
        assert_eq!(widest_load(&file(&[(0x7986, 6)]), "k"), None);
        assert_eq!(widest_load(&file(&[(0x7381, 4)]), "other"), None);
    }

    #[test]
    fn a_file_that_is_no_cubin_and_an_entry_that_is_not_there_have_no_operations() {
        let file = cubin("k", &[0x7223]);
        assert_eq!(operations(&file, "other"), None);
        assert_eq!(operations(b"", "k"), None);
        for cut in 0..file.len() {
            // A cut file must not panic; nothing is asserted of what is left of it.
            let _ = operations(&file[..cut], "k");
        }
        let mut wild = file;
        wild[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(operations(&wild, "k"), None);
    }

    #[test]
    fn a_declared_class_must_be_found_and_an_undeclared_matrix_instruction_must_not() {
        let found = |classes: &[&str]| classes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert!(is_expected("idp", &found(&["idp", "fma", "lut"])));
        assert!(!is_expected("idp", &found(&["fma"])));
        assert!(!is_expected("fma", &found(&["idp", "fma"])));
        assert!(is_expected("lut", &found(&["fma", "lut"])));
        assert!(!is_expected("none", &found(&["hmma"])));
        assert!(is_expected("none", &found(&["lut"])));
    }
}
