//! What broke other implementations, as transcripts. Each block of a text file here is a scenario:
//! its name, which real bugs it is about, a script, and, after `---`, all that real cores and their
//! disks did. `UPDATE=1 cargo test scenarios` rewrites the latter; the `expect` lines of a script
//! hold whatever was rewritten, and the oracles of Figure 3 look at everybody after every event
//! (`oracles.rs`).
//!
//! ```text
//! cluster 3 [entries 1]        servers n1 to n3, started; at most so many entries a message
//! machines 3                   the same with a past: then
//! disk n1 log 1 2 [term 3] [vote n2]     terms of the entries; and then `start`
//! put n1 x · read n1 r         a client writes x, or reads
//! n1 times out · n1 beats      it is n1's deadline, or heartbeat; only n1 looks at its clock
//! time 300ms · pause 300ms     everybody looks at theirs, or nobody
//! cut n1 n2 · cut n1->all Vote · isolate n1        messages are lost
//! mend [n1 n2]                 all arrive again, or theirs, over new connections
//! hold n1->n2 [Kind]           they stay on their way until the next two lines
//! deliver | duplicate | drop n1->n2 [Kind] [newest]
//! release n1->n2 | all
//! hold sync n1 · sync n1 · release sync n1         the disk takes its time
//! crash n1 [keeping 1] · restart n1      what was not synced is lost, but so many writes
//! forge n1->n2 Append after=2 upto=3 [term=] [commit=]     a message that nobody would send
//! expect …                     see `expect.rs`; `said`: since the last other command
//! quietly …                    without the messages
//! n4 joins                     a further server, with an empty disk
//! n1 adds n4 [as voter | for n3] · n1 promotes n4 · n1 removes n3
//! n1 hands over to n2
//! compact n1 upto 4            its log begins behind that entry
//! snapshot n1->n3 upto 4       what n1 has committed leaves as one piece
//! read n1 r by lease           after `cluster 3 leases`: clocks differ by 1 % at most
//! ```
//!
//! By the names of the catalogue of such bugs, whose 24 schedules to begin with are set in bold.
//! Those of text files are transcripts. The others are about what a script cannot say: bytes on a
//! disk, clients, the pace of messages, or one function's answer to many cases. Four schedules have
//! a part in both: that a node refuses a record that rotted (**C8**) or a disk that was emptied
//! (**C9**), when a leader ends a lease (**I1**), and that the second copy of a call is not done
//! (**I3**) are matters of files, greetings and the state machine, of which a core knows nothing;
//! what elections and logs contribute is a transcript.
//!
//! | Where | Which |
//! |---|---|
//! | `elections.txt` | **A1**, A2, A3, A5 to A7, **A8**, A9, A11 to A13, B7 |
//! | `commits.txt` | B1 (Figure 8), **B2**, **B3**, **B6**, B8, B11 to B13, B16, **I1**, **I3** |
//! | `disks.txt` | C1, **C2**, C3, **C4**, **C5**, C6, **C8** |
//! | `snapshots.txt` | **D1**, **D2**, D6, D7, D8 |
//! | `members.txt` | **E1**, **E2**, E3, **E4**, E5, E6, **E8**, E9, E10, E11, E13, **C9**, E12 |
//! | `reads.txt` | F1, **F2**, **F3**, **F4**, F7 |
//! | `liveness.txt` | H1, **H3**, H4, H5, **H6**, **H7** |
//! | `whole_nodes.rs` | B9, B10, C4, C7, **C8**, **C9** and with it E12, I4 |
//! | `transfers.rs` | D8 |
//! | `leases.rs` | **I1** |
//! | `replays.rs` | D9, **I3** |
//! | `../snapshots.rs` | D1 to D5, D7 |
//! | `../membership.rs` | E1 to E3, E5, E7 to E11, E13 |
//! | `../transfer.rs` | G1 to G5 |

mod bounds;
mod clones;
mod compactions;
mod diverged;
mod expect;
mod forced;
mod gone;
mod halfway;
mod hangs;
mod lease_lists;
mod leases;
mod listeners;
mod marks;
mod members;
pub(crate) mod nodes;
mod peers;
mod print;
mod ranges;
mod replays;
mod rights;
mod run;
mod saves;
mod script;
mod strangers;
mod transfers;
mod whole_nodes;
mod world;

/// One test per block of a file.
macro_rules! scenarios {
    ($module:ident $file:literal: $($name:ident)*) => {
        mod $module {
            $(#[test] fn $name() { super::run::check($file, stringify!($name)); })*

            #[test]
            fn every_block_is_run() {
                super::run::check_all_are_run($file, &[$(stringify!($name)),*]);
            }
        }
    };
}

scenarios! { elections "elections.txt":
    a_vote_is_remembered_whole_or_not_at_all
    a_vote_on_the_disk_does_not_spare_the_comparison_of_logs
    a_vote_that_a_power_loss_took_had_been_told_to_nobody
    a_candidate_asks_for_votes_once_its_own_is_durable
    a_vote_stays_given_in_its_term_whatever_the_server_does_next
    answers_to_an_older_campaign_and_answers_twice_elect_nobody
    a_pre_vote_that_comes_after_the_election_starts_no_other
    a_term_that_was_seen_is_not_a_vote_that_was_given
    a_deposed_leader_writes_nothing_in_the_new_term
    a_leader_that_restarts_does_not_lead_its_term_again
    logs_are_compared_by_term_first_and_by_length_then
    a_server_that_was_cut_off_comes_back_without_a_word
    a_vote_that_waits_for_the_disk_survives_a_late_request_of_an_older_term
    a_split_vote_ends_with_the_next_timeout
    half_of_an_even_cluster_elects_nobody
}

scenarios! { liveness "liveness.txt":
    a_voter_in_an_older_term_is_a_voter_all_the_same
    a_high_term_with_a_short_log_and_a_low_term_with_a_long_log_find_a_leader
    a_candidate_that_loses_on_its_log_makes_way
    who_asks_for_pre_votes_forgets_its_leader_and_keeps_its_vote
    a_follower_that_refuses_has_heard_its_leader
    a_server_that_hears_no_leader_while_others_do_disturbs_nobody
    a_bridge_lets_go_of_a_leader_that_has_no_quorum
    a_leader_that_is_heard_and_hears_nobody_falls_silent
    a_follower_that_is_heard_and_hears_nobody_is_harmless
    a_follower_that_answers_is_heard_though_its_disk_is_slow
    each_server_hears_only_its_neighbours_in_a_ring_and_there_is_a_leader
    a_leader_whose_disk_hangs_holds_back_no_commit
    a_leader_whose_disk_hangs_for_long_leaves_office_and_does_not_campaign
    a_server_whose_disk_hangs_neither_wins_nor_disturbs_an_election
}

scenarios! { commits "commits.txt":
    figure_8_an_old_entry_on_a_majority_is_not_committed_and_may_be_overwritten
    figure_8_an_old_entry_is_committed_with_one_of_the_leaders_own_term
    a_leader_that_fills_up_a_follower_commits_nothing_old_by_it
    commit_goes_no_further_than_what_the_message_proved
    a_repeated_append_removes_nothing
    what_was_overwritten_is_not_acknowledged_with_its_old_position
    a_durable_prefix_is_all_that_a_heartbeat_is_answered_with
    a_position_in_an_older_term_is_not_counted
    an_answer_of_an_older_connection_proves_nothing
    a_refusal_that_comes_late_moves_nothing_back
    commit_and_match_survive_answers_in_any_order
    appends_that_overtake_each_other_arrive_whole_in_the_end
    a_deposed_leaders_entries_come_too_late
    what_a_client_sends_again_to_the_next_leader_stands_behind_the_first_copy
    what_a_leader_wanted_before_it_slept_is_not_done_behind_the_back_of_the_next_one
}

scenarios! { disks "disks.txt":
    a_cluster_of_one_commits_what_its_disk_has
    a_leader_counts_itself_once_its_entry_is_durable
    an_entry_in_the_memory_of_a_majority_is_not_committed
    the_term_is_on_disk_before_the_entries_of_that_term
    an_entry_proves_that_its_term_began_and_a_vote_in_it_is_not_given_twice
    a_receipt_from_before_a_truncation_proves_nothing_behind_it
    a_vote_and_an_entry_in_one_job_are_released_by_it_together
    a_server_whose_record_rotted_stays_down_and_nobody_leads_without_what_it_had
}

scenarios! { reads "reads.txt":
    a_leader_that_was_replaced_answers_no_read
    a_new_leader_reads_nothing_before_it_has_committed_an_entry_of_its_own
    an_old_confirmation_confirms_no_later_read
    a_round_of_an_older_leadership_confirms_nothing_in_a_newer_one
    a_cluster_that_starts_again_reads_what_it_had
    a_handover_that_was_given_up_ends_the_lease_for_good
}

scenarios! { snapshots "snapshots.txt":
    a_snapshot_that_was_long_on_its_way_takes_nothing_back
    what_follows_a_snapshots_last_entry_in_the_log_stays_there
    a_log_that_differs_from_a_snapshot_goes_as_a_whole
    a_snapshot_keeps_the_term_of_the_last_entry_that_it_stands_for
    a_snapshot_that_is_newer_than_the_log_takes_its_place_and_entries_go_on_behind_it
    a_server_that_campaigns_takes_the_snapshot_that_it_needs_to_win
}

scenarios! { changes "members.txt":
    leaders_of_two_terms_do_not_step_apart_from_one_configuration
    who_was_removed_elects_nobody_by_the_configuration_of_before
    who_has_the_longer_log_is_electable_though_it_does_not_know_that_it_is_a_voter_for_good
    a_configuration_that_is_not_committed_survives_a_restart_and_goes_with_its_entry
    a_new_leader_builds_on_the_configuration_in_its_log_committed_or_not
    neither_half_of_a_joint_configuration_decides_alone
    a_learner_votes_for_who_knows_that_it_is_a_voter
    who_was_removed_and_not_told_disturbs_nobody
    a_leader_that_removes_itself_from_two_leads_until_the_other_knows
    nobody_becomes_a_voter_who_is_not_there
    a_leader_that_hears_nobody_changes_nothing
    a_server_that_lost_its_disk_comes_back_as_another_and_elects_nobody_meanwhile
}
