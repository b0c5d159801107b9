//! The flows of the demo and their neighbours, each as a test, on nodes with kubelet and containerd, and Nearbrick by its chart.

mod api_away;
mod examples;
mod files;
mod heal;
mod hub;
mod jobs;
mod local;
mod loss;
mod migration;
mod partition;
mod placement;
mod plugin;
mod removal;
mod space;
mod trust;

use std::process::ExitCode;

use nearbrick_e2e::record::Kind;
use nearbrick_e2e::{cases, testing};

fn main() -> ExitCode {
    testing::run(
        "flows",
        env!("CARGO_BIN_EXE_lab"),
        Kind::Nodes,
        cases![
            examples::of_the_semantics_hold,
            jobs::by_hand_for_some_paths_and_for_one_pair,
            jobs::one_whose_source_is_away_tries_again_until_it_is_there,
            hub::a_hub_holds_all_and_may_become_another_one,
            local::writes_stay_local_while_the_others_idle,
            local::names_travel_at_once_and_contents_on_read,
            heal::by_schedule,
            heal::by_trigger,
            heal::a_deleted_job_ends_at_once_and_leaves_what_came,
            heal::all_pairs_heal_side_by_side_and_kubectl_shows_how_far_they_are,
            heal::without_anything_pending_makes_no_job,
            files::the_group_is_known_to_kubectl,
            files::what_is_pending_is_listed_in_pages,
            files::where_a_file_is_and_its_versions_come_back,
            files::only_who_may_see_a_namespace_may_ask_and_only_by_the_api_server,
            loss::the_others_read_every_file,
            loss::a_return_catches_up,
            migration::a_project_follows_the_person_who_works_on_it,
            partition::work_while_cut_off_heals_after_the_join,
            placement::a_workstation_that_joins_takes_its_share,
            placement::a_workstation_that_is_evicted_is_emptied_first,
            placement::a_lost_workstation_is_replaced_and_may_return,
            placement::one_that_is_away_is_replaced_after_the_grace_and_not_while_it_is_expected_to_be_off,
            placement::a_node_whose_disk_died_is_replaced_by_a_new_one,
            placement::copies_follow_replicas_and_sets_up_and_down,
            plugin::may_leave_is_answered_and_made_so,
            plugin::an_answer_is_never_from_before_the_question,
            plugin::what_is_used_where_it_is_to_be_and_a_move_by_hand,
            plugin::conflicts_are_shown_and_resolved,
            removal::a_volume_with_policy_delete_takes_its_files_with_it,
            removal::a_brick_that_is_deleted_stays_until_others_hold_its_files,
            removal::a_volume_with_policy_retain_leaves_all_files_where_they_are,
            removal::a_workstation_that_is_deleted_stays_until_others_hold_its_files,
            space::a_full_disk_has_another_take_what_is_new,
            trust::s07_a_token_of_one_node_says_nothing_of_another,
            trust::s07_a_certificate_of_one_node_opens_nothing_of_another,
            trust::s08_another_authority_takes_over_while_people_work,
            api_away::local_work_goes_on_and_reports_resume,
            api_away::agents_heal_by_the_last_policy,
            api_away::agents_heal_without_the_operator,
        ],
    )
}
