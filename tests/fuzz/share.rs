//! What a peer sends about a share: its manifest, and the hints beside it.

use shoal::content::{Manifest, ShareInfo};

use super::memory::{frugal, frugal_beside};

/// Memory for each entry of a manifest that breaks no rule, beyond what every decoder may claim. A file with content is
/// longer than 40 bytes there, so that only empty files, empty folders and symlinks need it.
const ENTRY_BYTES: usize = size_of::<shoal::content::Entry>() + 16;

/// A manifest: the bytes that are read are the bytes that are written, and what is refused was not kept.
pub(super) fn manifest(data: &[u8]) {
    let beside = |decoded: &Result<Manifest, _>| {
        let manifest = decoded.as_ref().ok();
        manifest.map_or(0, |manifest| manifest.entries().len() * ENTRY_BYTES)
    };
    let decoded = frugal_beside(beside, data.len(), || Manifest::decode(data));
    if let Ok(manifest) = decoded {
        assert_eq!(manifest.encode(), data);
        let again = Manifest::decode(data).expect("as before");
        assert_eq!((again.id(), &again), (manifest.id(), &manifest));
        assert_eq!(
            manifest.files().count(),
            manifest.geometry().file_count() as usize
        );
    }
}

/// Times of the files of a share; how many files that has is the first byte, and known before.
pub(super) fn info(data: &[u8]) {
    let Some((file_count, data)) = data.split_first() else {
        return;
    };
    let beside = usize::from(*file_count) * size_of::<i64>();
    let read = |bytes: &[u8]| ShareInfo::decode(bytes, u32::from(*file_count));
    if let Some(info) = frugal_beside(|_| beside, data.len(), || read(data)) {
        assert!([0, usize::from(*file_count)].contains(&info.modified().count()));
        assert_eq!(read(&info.encode()), Some(info));
    }
    // Nobody knows so many files, and a claim of them is not believed.
    frugal(data.len(), || ShareInfo::decode(data, u32::MAX));
}
