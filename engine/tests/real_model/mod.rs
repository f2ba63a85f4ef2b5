//! Finds the real model that some tests need.

use std::path::PathBuf;

/// The path of SmolLM2-135M-Instruct Q4_1, or `None` after saying that the test is skipped.
///
/// `EDGELLM_TEST_MODEL` names it; otherwise it is looked for where `edgellm pull smollm2:135m` puts it.
/// With `EDGELLM_REQUIRE_MODEL=1` its absence is a failure.
pub fn path() -> Option<PathBuf> {
    let named = std::env::var_os("EDGELLM_TEST_MODEL").map(PathBuf::from);
    let pulled = std::env::home_dir().map(|home| home.join(".local/share/edgellm/models/smollm2-135m.gguf"));
    let found = named.or(pulled).filter(|path| path.is_file());
    if found.is_none() {
        let required = std::env::var_os("EDGELLM_REQUIRE_MODEL").is_some_and(|v| v == "1");
        assert!(!required, "EDGELLM_REQUIRE_MODEL=1 and no model: set EDGELLM_TEST_MODEL or pull smollm2:135m");
        println!("skipped: needs SmolLM2-135M; set EDGELLM_TEST_MODEL or run `edgellm pull smollm2:135m`");
    }
    found
}
