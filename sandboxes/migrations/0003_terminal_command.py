"""What a terminal is opened for."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0002_initial")]

    operations = [
        migrations.AddField(
            model_name="terminal",
            name="command",
            field=models.CharField(blank=True, max_length=4000),
        ),
    ]
