"""Addresses of sandboxes."""

from django.urls import path

from . import (
    activity_views,
    backend_views,
    edit_views,
    exec_views,
    file_views,
    link_views,
    list_views,
    metric_views,
    orphan_views,
    recording_views,
    snapshot_views,
    terminal_views,
    upload_views,
    views,
)

app_name = "sandboxes"
urlpatterns = [
    path("", list_views.index, name="list"),
    path("bulk/", list_views.bulk, name="bulk"),
    path("new/", views.new, name="new"),
    path("connect/", views.connect, name="connect"),
    path("links/<str:key>/", link_views.use, name="link"),
    path("orphans/", orphan_views.index, name="orphans"),
    path("orphans/change/", orphan_views.change, name="change_orphan"),
    path("backends/", backend_views.index, name="backends"),
    path("backends/teams/<slug:slug>/", backend_views.own, name="own_backend"),
    path("backends/<slug:name>/", backend_views.detail, name="backend"),
    path("backends/<slug:name>/probe/", backend_views.probe, name="probe"),
    path("<str:code>/", views.detail, name="detail"),
    path("<str:code>/files/", file_views.show, name="files"),
    path("<str:code>/files/<path:path>", file_views.show, name="file"),
    path("<str:code>/tree/", file_views.tree, name="tree"),
    path("<str:code>/links/", link_views.index, name="links"),
    path("<str:code>/links/<str:link>/revoke/", link_views.revoke, name="revoke_link"),
    path("<str:code>/ports/", views.ports, name="ports"),
    path("<str:code>/activity/", activity_views.show, name="activity"),
    path("<str:code>/settings/", views.settings, name="settings"),
    path("<str:code>/terminals/", terminal_views.open_terminal, name="terminals"),
    path(
        "<str:code>/terminals/<str:terminal>/close/",
        terminal_views.close_terminal,
        name="close",
    ),
    path(
        "<str:code>/terminals/<str:terminal>/rename/",
        terminal_views.rename,
        name="rename_terminal",
    ),
    path("<str:code>/uploads/", upload_views.begin, name="uploads"),
    path("<str:code>/uploads/<str:token>/", upload_views.piece, name="upload"),
    path("<str:code>/edit/", edit_views.edit, name="edit"),
    path("<str:code>/change/", edit_views.change, name="change"),
    path("<str:code>/exec/", exec_views.index, name="exec"),
    path("<str:code>/exec/<str:command>/", exec_views.show, name="command"),
    path("<str:code>/exec/<str:command>/kill/", exec_views.kill, name="kill_command"),
    path(
        "<str:code>/exec/<str:command>/download/",
        exec_views.download,
        name="command_output",
    ),
    path("<str:code>/recordings/", recording_views.index, name="recordings"),
    path(
        "<str:code>/recordings/<str:recording>/", recording_views.play, name="recording"
    ),
    path(
        "<str:code>/recordings/<str:recording>/cast/",
        recording_views.cast,
        name="cast",
    ),
    path(
        "<str:code>/recordings/<str:recording>/delete/",
        recording_views.delete,
        name="delete_recording",
    ),
    path("<str:code>/metrics/", metric_views.show, name="metrics"),
    path("<str:code>/snapshots/", snapshot_views.index, name="snapshots"),
    path(
        "<str:code>/snapshots/<str:snapshot>/create/",
        snapshot_views.create,
        name="create_from",
    ),
    path(
        "<str:code>/snapshots/<str:snapshot>/delete/",
        snapshot_views.delete,
        name="delete_snapshot",
    ),
    path("<str:code>/fork/", snapshot_views.fork, name="fork"),
    path("<str:code>/pause/", views.pause, name="pause"),
    path("<str:code>/resume/", views.resume, name="resume"),
    path("<str:code>/extend/", views.extend, name="extend"),
    path("<str:code>/dispose/", views.dispose, name="dispose"),
]
