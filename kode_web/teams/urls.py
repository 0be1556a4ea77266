"""Addresses of teams."""

from django.urls import path

from . import views

app_name = "teams"
urlpatterns = [
    path("", views.index, name="list"),
    path("<slug:slug>/", views.detail, name="detail"),
    path("<slug:slug>/keep/", views.keep, name="keep"),
    path("<slug:slug>/members/", views.add, name="add"),
    path("<slug:slug>/members/<int:pk>/", views.change, name="change"),
]
