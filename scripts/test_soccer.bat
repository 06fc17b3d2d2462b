@echo off
rem Translate the test folders (segTest, realTest) with the newest checkpoint.
rem Usage: scripts\test_soccer.bat <gpu_id> [data set folder] [up to seven more words of flags]
if "%~1"=="" (
    echo usage: scripts\test_soccer.bat ^<gpu_id^> [data set folder] [more flags] 1>&2
    exit /b 2
)
set "folder=%~2"
if "%folder%"=="" set "folder=datasets\soccer"
for %%I in ("%folder%") do (
    set "root=%%~dpI."
    set "name=%%~nxI"
)
python test.py --gpu_ids %~1 --dataset_dir "%root%" --dataset_name "%name%" %3 %4 %5 %6 %7 %8 %9
