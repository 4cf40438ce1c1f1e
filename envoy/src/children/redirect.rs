//! Redirects calls of the running program into shared libraries, by the table through which it makes
//! them: the relocations that name a function (ELF specification, "Dynamic Linking").
//!
//! Nothing but the program's own calls is changed, neither those of libraries nor those that a library
//! makes to itself.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::{io, ptr, slice};

/// Where the running program lies in memory.
#[derive(Debug, Default)]
pub(super) struct Program {
    code: Vec<Range<usize>>,
    /// What the dynamic loader has made read-only once it was done with it (`PT_GNU_RELRO`).
    protected: Range<usize>,
    /// Where its pointers to functions are, with the functions' names.
    slots: Vec<(&'static CStr, usize)>,
}

/// An entry of the dynamic section.
#[repr(C)]
struct Dynamic {
    tag: usize,
    value: usize,
}

/// A relocation with an addend.
#[repr(C)]
struct Relocation {
    offset: usize,
    info: usize,
    addend: usize,
}

const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_RELA: usize = 7;
const DT_RELASZ: usize = 8;
const DT_JMPREL: usize = 23;
const DT_PLTRELSZ: usize = 2;
/// How many relocations, which come first, name nothing.
const DT_RELACOUNT: usize = 0x6fff_fff9;

impl Program {
    pub(super) fn running() -> Self {
        let mut program = Self::default();
        let data = (&raw mut program).cast();
        // SAFETY: `read_first` is called before the function returns, with `data` as it is.
        unsafe { libc::dl_iterate_phdr(Some(read_first), data) };
        program
    }

    /// Has calls of the named functions go to others, of the same signature. Returns the names of
    /// those that it can't be kept from calling.
    pub(super) fn redirect(&self, functions: &[(&'static CStr, *const c_void)]) -> Vec<String> {
        let mut kept = Vec::new();
        for (name, function) in functions {
            let slots = self.slots.iter().filter(|(known, _)| known == name);
            // Each of them, whatever becomes of the others.
            let failed = slots.filter(|(_, slot)| self.set_slot(*slot, *function).is_err());
            if failed.count() > 0 {
                kept.push(name.to_string_lossy().into_owned());
            }
        }
        kept
    }

    /// Whether the program calls a function of this name in a shared library.
    pub(super) fn calls(&self, name: &CStr) -> bool {
        self.slots.iter().any(|(known, _)| *known == name)
    }

    fn set_slot(&self, slot: usize, function: *const c_void) -> io::Result<()> {
        let is_protected = self.protected.contains(&slot);
        if is_protected {
            protect(slot, libc::PROT_READ | libc::PROT_WRITE)?;
        }
        let place = ptr::with_exposed_provenance_mut::<*const c_void>(slot);
        // SAFETY: aligned, and writable. Threads that read it meanwhile see one function or the other.
        unsafe { place.write_volatile(function) };
        if is_protected {
            protect(slot, libc::PROT_READ)?;
        }
        Ok(())
    }

    /// Whether a function is one of the program's own.
    pub(super) fn has(&self, function: usize) -> bool {
        self.code.iter().any(|range| range.contains(&function))
    }

    /// Reads the dynamic section.
    ///
    /// # Safety
    ///
    /// `entries` is that of the program, which was loaded at `base`.
    unsafe fn read_slots(&mut self, base: usize, entries: &[Dynamic]) {
        let entry = |tag| entries.iter().find(|entry| entry.tag == tag);
        let value = |tag| entry(tag).map(|entry| entry.value);
        // The dynamic loader may have made addresses of what are offsets in the file.
        let address = |tag| value(tag).map(|value| if value < base { base + value } else { value });
        let (Some(symbols), Some(strings)) = (address(DT_SYMTAB), address(DT_STRTAB)) else {
            return;
        };
        let nameless = value(DT_RELACOUNT).unwrap_or(0);
        for (table, size, skipped) in [(DT_RELA, DT_RELASZ, nameless), (DT_JMPREL, DT_PLTRELSZ, 0)]
        {
            let (Some(table), Some(size)) = (address(table), value(size)) else {
                continue;
            };
            let count = size / size_of::<Relocation>();
            let table = ptr::with_exposed_provenance::<Relocation>(table);
            // SAFETY: the dynamic section says that so many are there; they stay as long as the program.
            let table = unsafe { slice::from_raw_parts(table, count) };
            for relocation in table.iter().skip(skipped) {
                let symbol = relocation.info >> 32;
                if symbol == 0 || relocation.addend != 0 {
                    continue;
                }
                let symbols = ptr::with_exposed_provenance::<libc::Elf64_Sym>(symbols);
                // SAFETY: a relocation names a symbol of the table.
                let symbol = unsafe { symbols.add(symbol) };
                // SAFETY: as above.
                let name = unsafe { (*symbol).st_name };
                let name = ptr::with_exposed_provenance(strings + name as usize);
                // SAFETY: a symbol's name is in the table of strings, and ends with NUL.
                let name = unsafe { CStr::from_ptr(name) };
                self.slots.push((name, base + relocation.offset));
            }
        }
    }
}

/// Reads the first object of the process, which is the program, and no other.
unsafe extern "C" fn read_first(
    info: *mut libc::dl_phdr_info,
    _: usize,
    program: *mut c_void,
) -> c_int {
    // SAFETY: the dynamic loader lends it for the call.
    let info = unsafe { &*info };
    // SAFETY: what `Program::running` gave, which nobody else uses meanwhile.
    let program = unsafe { &mut *program.cast::<Program>() };
    let Ok(base) = usize::try_from(info.dlpi_addr) else {
        return 1;
    };
    // SAFETY: the dynamic loader says that so many are there.
    let segments = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for segment in segments {
        let begin = base + segment.p_vaddr as usize;
        let size = segment.p_memsz as usize;
        if segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_X != 0 {
            program.code.push(begin..begin + size);
        }
        if segment.p_type == libc::PT_GNU_RELRO {
            // Of its last page the loader protects nothing if other data is in it, too.
            program.protected = begin..(begin + size) / page_size() * page_size();
        }
        if segment.p_type == libc::PT_DYNAMIC {
            let entries = ptr::with_exposed_provenance::<Dynamic>(begin);
            let count = size / size_of::<Dynamic>();
            // SAFETY: the segment is in memory, and is made of such entries.
            let entries = unsafe { slice::from_raw_parts(entries, count) };
            // SAFETY: it is that of the program, at its base.
            unsafe { program.read_slots(base, entries) };
        }
    }
    1
}

/// Sets what may be done with the page of a slot.
fn protect(slot: usize, protection: c_int) -> io::Result<()> {
    let page = page_size();
    let begin = ptr::with_exposed_provenance_mut(slot / page * page);
    // SAFETY: memory of the program, of which it only ever reads the page; a slot does not cross pages.
    match unsafe { libc::mprotect(begin, page, protection) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn page_size() -> usize {
    // SAFETY: a plain question.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
