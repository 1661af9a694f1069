//! The checker of histories, itself checked: it convicts what is wrong and nothing else.
